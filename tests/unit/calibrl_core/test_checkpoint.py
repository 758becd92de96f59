"""The optimizer's state in a checkpoint: it goes to the tensors that it belongs to, or the run is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from calibrl_core.config import BuiltinModel, LoraSettings, TrainConfig
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import SilentReport
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, restore_optimizer
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.optimizer import make_optimizer
from calibrl_core.train import train

TINY = {"builtin": "tiny-vlm"}
LORA: dict[str, Any] = {"lora": {"rank": 2}}
FROZEN: dict[str, Any] = {"freeze_vision": True}
FILE = "optimizer.safetensors"


def save(run_dir: Path, without_gradient: list[str] | tuple[Any, ...] = (), **options: Any) -> Path:
    """The checkpoint of a run of one update."""
    policy = load_policy(BuiltinModel.model_validate(TINY | options))
    optimizer = make_optimizer(policy, OptimizerSettings())
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.trained.items():
        if not name.startswith(tuple(without_gradient)):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    return Checkpoints(run_dir, CheckpointSettings()).save(policy, optimizer, TrainerState(step=1))


def resume(run_dir: Path, **options: Any) -> str:
    """Return the trainer's message when it resumes with these options of the model."""
    settings = {"model": TINY | options, "data": {"builtin": "digits", "split": "train", "rows": 6}, "steps": 2}
    with pytest.raises(ModelError) as caught:
        train(TrainConfig.model_validate(settings), SilentReport(run_dir), lambda: True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def restored(checkpoint: Path, **options: Any) -> tuple[Any, ...]:
    """The policy of a checkpoint, and the optimizer's state of each of its trained tensors."""
    policy = load_policy(BuiltinModel.model_validate(TINY | options), checkpoint=checkpoint)
    optimizer = make_optimizer(policy, OptimizerSettings())
    restore_optimizer(checkpoint, optimizer, policy)
    return policy, {name: optimizer.state[one] for name, one in policy.trained.items() if one in optimizer.state}


def by_position(checkpoint: Path, policy: Policy, change: Callable[..., Any] | type[Any] = dict) -> None:
    """Rewrite the optimizer's state as earlier versions wrote it, and apply `change` to its tensors."""
    saved = load_file(checkpoint / FILE)
    places = {name: place for place, name in enumerate(policy.trained)}
    parts = {name: name.rpartition(".") for name in saved}
    save_file(
        change({f"{places[owner]}.{kind}": saved[name] for name, (owner, _, kind) in parts.items()}), checkpoint / FILE
    )


@pytest.mark.parametrize(
    ("before", "now", "remedy"),
    [
        ({}, FROZEN, "set model.freeze_vision to false again"),
        (FROZEN, {}, "set model.freeze_vision to true again"),
        (LORA, {}, "restore model.lora"),
        (LORA, FROZEN, "restore model.lora"),
        ({}, LORA, "remove model.lora"),
        (FROZEN, LORA, "remove model.lora"),
    ],
)
def test_a_resume_that_trains_other_tensors_is_refused(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], remedy: str
) -> None:
    checkpoint = save(tmp_path, **before)
    message = resume(tmp_path, **now)
    assert message.startswith(str(checkpoint))
    assert remedy in message


def test_the_refusal_names_the_first_tensors_and_their_count(tmp_path: Path) -> None:
    save(tmp_path)
    message = resume(tmp_path, **FROZEN)
    connector = "model.connector.modality_projection.proj.weight"
    assert f"no longer trained: {connector}, model.vision_model.embeddings." in message
    policy = load_policy(BuiltinModel.model_validate(TINY | FROZEN))
    frozen = len(list(policy.model.parameters())) - len(policy.trained)
    assert f"({frozen} in all)" in message


@pytest.mark.parametrize("options", [{}, LORA, FROZEN], ids=["all", "lora", "frozen"])
def test_state_is_restored_by_name(tmp_path: Path, options: dict[str, Any]) -> None:
    checkpoint = save(tmp_path, without_gradient=["model.vision_model."], **options)
    saved = load_file(checkpoint / FILE)
    policy, found = restored(checkpoint, **options)
    assert {f"{name}.{kind}" for name, state in found.items() for kind in state} == saved.keys()
    for name, state in found.items():
        assert not name.startswith("model.vision_model.")
        assert all(torch.equal(tensor, saved[f"{name}.{kind}"]) for kind, tensor in state.items())
    assert len(policy.trained) >= len(found) > 0


def test_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, **LORA)
    other = load_policy(BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4)))
    optimizer = make_optimizer(other, OptimizerSettings())
    with pytest.raises(ModelError, match=r"of another shape: .* for .*; restore model\.lora\.targets and "):
        restore_optimizer(checkpoint, optimizer, other)
    assert not optimizer.state


def test_an_earlier_checkpoint_that_fits_is_restored(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    _, expected = restored(checkpoint)
    by_position(checkpoint, load_policy(BuiltinModel(builtin="tiny-vlm")))
    _, found = restored(checkpoint)
    assert found.keys() == expected.keys()
    for name, state in expected.items():
        assert all(torch.equal(tensor, found[name][kind]) for kind, tensor in state.items())


def test_an_earlier_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    policy = load_policy(BuiltinModel(builtin="tiny-vlm"))
    by_position(checkpoint, policy, lambda saved: {name: one for name, one in saved.items() if name[:2] != "7."})
    remedy = "set model.lora and model.freeze_vision to their values"
    assert remedy in resume(tmp_path)
    assert remedy in resume(tmp_path, **FROZEN)
    checkpoint = save(tmp_path)
    by_position(checkpoint, policy)
    assert remedy in resume(tmp_path, **FROZEN)
    saved = load_file(checkpoint / FILE)
    save_file(saved | {"0.exp_avg": torch.zeros(3)}, checkpoint / FILE)
    assert remedy in resume(tmp_path)
