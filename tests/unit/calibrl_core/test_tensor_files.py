"""Tensors in files of limited size: what is written is read again, in whole or in part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.models import tensor_files
from calibrl_core.models.loading import load_model
from calibrl_core.models.policy import load_policy
from calibrl_core.models.tensor_files import TensorFiles, write_tensors
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, restore_optimizer
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.optimizer import make_optimizer

NUMBERS = {"a": torch.arange(6.0).view(3, 2), "b": torch.ones(2), "c": torch.tensor(7.0), "d": torch.zeros(20)}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2 * 10**9, {"numbers.safetensors": "abcd"}),
        # 24, 8, 4 and 80 bytes: the last is larger than a file may be
        (32, dict(zip((f"numbers-0000{n}-of-00003.safetensors" for n in (1, 2, 3)), ("ab", "c", "d"), strict=True))),
    ],
)
def test_a_file_ends_before_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(tensor_files, "FILE_BYTES", limit)
    write_tensors(tmp_path, "numbers", iter(NUMBERS.items()), {"of": "numbers"})
    index = tmp_path / "numbers.safetensors.index.json"
    assert {path.name for path in tmp_path.glob("*.safetensors")} == expected.keys()
    assert index.is_file() == (len(expected) > 1)
    if index.is_file():
        files = {name: file for file, names in expected.items() for name in names}
        assert json.loads(index.read_text()) == {"metadata": {"total_size": 116}, "weight_map": files}
    with TensorFiles(tmp_path, "numbers") as found:
        assert sorted(found.names) == list("abcd")
        assert found.metadata == {"of": "numbers"}
        assert all(torch.equal(found.read(name), tensor) for name, tensor in NUMBERS.items())
        assert (found.shape("a"), found.shape("c")) == ((3, 2), ())
        assert found.read_rows("a", 1, 2).tolist() == [[2, 3], [4, 5]]
        assert found.read_rows("a", 3, 0).shape == (0, 2)


def test_no_tensors_make_one_file(tmp_path: Path) -> None:
    write_tensors(tmp_path, "none", iter(()), {"of": "nothing"})
    with TensorFiles(tmp_path, "none") as found:
        assert found.names == []


@pytest.mark.parametrize("mode", [0o750, 0o700])
def test_who_can_read_the_folder_can_read_its_tensors(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    folder.chmod(mode)
    write_tensors(folder, "numbers", iter(NUMBERS.items()), {})
    assert (folder / "numbers.safetensors").stat().st_mode & 0o777 == mode & 0o640


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TensorFiles(tmp_path, "numbers")


def test_a_checkpoint_of_several_files_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm"))
    optimizer = make_optimizer(policy, OptimizerSettings())
    for parameter in policy.trained.values():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    monkeypatch.setattr(tensor_files, "FILE_BYTES", 10**6)
    folder = Checkpoints(tmp_path, CheckpointSettings()).save(policy, optimizer, TrainerState(step=1))
    assert all(len(list(folder.glob(f"{stem}-*.safetensors"))) > 3 for stem in ("model", "optimizer"))
    again = load_policy(PathModel(path=str(folder)))
    expected = policy.model.state_dict()
    assert all(torch.equal(expected[name], one) for name, one in again.model.state_dict().items())
    other = make_optimizer(again, OptimizerSettings())
    restore_optimizer(folder, other, again)

    def moments(one: torch.optim.Optimizer) -> list[Tensor]:
        return [value for state in one.state_dict()["state"].values() for _, value in sorted(state.items())]

    found = moments(other)
    assert len(found) == 3 * len(policy.trained)
    assert all(torch.equal(one, two) for one, two in zip(found, moments(optimizer), strict=True))


@pytest.mark.parametrize("kind", ["Qwen2", "Gemma"])  # Gemma's embeddings have a factor in a buffer
def test_mapped_weights_are_those_of_the_files(tmp_path: Path, text_policy: Callable[..., Any], kind: str) -> None:
    policy = text_policy(getattr(transformers, f"{kind}Config"))
    policy.save_form(tmp_path)
    half = {name: tensor.bfloat16() for name, tensor in policy.model.state_dict().items() if name != "lm_head.weight"}
    half |= {} if policy.model.config.tie_word_embeddings else {"lm_head.weight": policy.head.weight.bfloat16()}
    save_file(half, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source = PathModel(path=str(tmp_path))
    (mapped, _), (whole, _) = load_model(source, mapped=True), load_model(source)
    assert {one.dtype for one in mapped.parameters()} == {torch.bfloat16}
    assert mapped.config.dtype == torch.float32
    assert [*mapped.state_dict()] == [*whole.state_dict()]
    assert all(torch.equal(one.float(), two) for one, two in zip(mapped.parameters(), whole.parameters(), strict=True))
    buffers = dict(mapped.named_buffers())
    assert buffers.keys() == dict(whole.named_buffers()).keys()
    assert all(
        torch.equal(buffers[name], one) and one.dtype == buffers[name].dtype for name, one in whole.named_buffers()
    )
