"""Comparison of updates: the run's own is found again, variants differ as the algebra says, and nothing is trained."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from calibrl_core.data.schema import DataError
from calibrl_core.models.policy import make_reference
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.variants.settings import WhatIfConfig, changed_algorithm
from calibrl_core.what_if import what_if
from tests.support.training import config, of_type

OWN = {"type": "calibrl", "mini_batches": 1, "guidance_coef": 0.5, "expert_tail": "zero_for_all"}
pytestmark = pytest.mark.usefixtures("rewarding")


def trained(folder: Path, **changes: Any) -> dict[str, Any]:
    """Train two steps with a checkpoint after each; return the config."""
    given = {"algorithm": OWN, "steps": 2, "checkpoints": {"every_steps": 1}, "optimizer": {"lr": 1e-3}}
    settings = config(**(given | changes))
    report = EventFile(folder)
    train(settings, report, lambda: False)
    report.close()
    return dict(settings.model_dump(mode="json"))


def compared(folder: Path, settings: dict[str, Any], *variants: dict[str, Any], step: int = 1, **more: Any) -> Any:
    """The result of a what-if with these changes of the run's algorithm, named by their place."""
    named = [
        {"name": str(place), "algorithm": changed_algorithm(settings["algorithm"], changes)}
        for place, changes in enumerate(variants)
    ]
    checkpoint = {"path": str(folder / "checkpoints" / f"step-{step:06d}")}
    given = WhatIfConfig.model_validate(settings | {"variants": named, "checkpoint": checkpoint} | more)
    report = EventFile(folder / f"what-if-{len(list(folder.glob('what-if-*')))}")
    ended = what_if(given, report)
    report.close()
    assert ended["status"] == "succeeded"
    return ended["result"]


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def test_the_own_update_is_that_of_the_run(tmp_path: Path) -> None:
    settings = trained(tmp_path)
    found = compared(tmp_path, settings, {})
    own, same = found["updates"]
    values = of_type(tmp_path, "metrics")[1]["values"]
    assert (own["name"], found["step"], found["update"]) == ("own", 2, 0)
    assert own["gradient_norm"] == pytest.approx(values["loss/grad_norm"], rel=1e-6)
    before, after = weights(tmp_path, 1), weights(tmp_path, 2)
    moved = sum((after[name] - before[name]).double().square().sum() for name in before) ** 0.5
    assert own["update_norm"] == pytest.approx(float(moved), rel=1e-5)
    assert found["tokens"] == values["length/mean"] * found["rollouts"]
    assert {**same, "name": "own"} == own
    assert (own["gradient_cosine"], own["update_cosine"]) == (pytest.approx(1), pytest.approx(1))


def test_guidance_of_slope_1_is_a_multiple_of_the_policy_gradient(tmp_path: Path) -> None:
    """With 0/1 rewards and one on-policy update each token's gradient is 1 + guidance_coef times that of GRPO."""
    settings = trained(tmp_path)
    found = compared(
        tmp_path, settings, {"negative_slope": 1.0}, {"guidance_coef": 0.0}, {"type": "grpo"}, {"negative_slope": 0.0}
    )
    _, slope_1, without, grpo, slope_0 = found["updates"]
    assert slope_1["gradient_norm"] == pytest.approx(1.5 * without["gradient_norm"], rel=1e-4)
    assert slope_1["gradient_cosine"] == pytest.approx(without["gradient_cosine"], abs=1e-5)
    assert grpo["gradient_norm"] == pytest.approx(without["gradient_norm"], rel=1e-6)
    assert grpo["change"] == pytest.approx(without["change"], abs=1e-9)
    assert slope_0["gradient_cosine"] < 0.99999
    assert slope_1["changes"] == {"negative_slope": 1.0}
    assert grpo["changes"]["type"] == "grpo"


def test_the_change_is_that_of_the_log_probabilities(tmp_path: Path) -> None:
    """SGD-like: a higher learning rate of the same direction; correct rollouts become likelier, wrong ones less."""
    found = compared(tmp_path, trained(tmp_path, optimizer={"lr": 1e-4, "beta1": 0.0, "beta2": 0.0}), {})
    (own, _) = found["updates"]
    assert own["change_correct"] > 0 > own["change_wrong"]
    total = sum(own["quadrants"][name] * count for name, count in found["quadrant_tokens"].items() if count)
    assert sum(found["quadrant_tokens"].values()) <= found["tokens"]
    assert total != 0
    for completion in found["completions"]:
        assert len(completion["changes"]) == 2
        assert len(completion["changes"][0]) == len(completion["tokens"]) == len(completion["gaps"])
    shown = [value for one in found["completions"] for value in one["changes"][0]]
    assert sum(shown) / len(shown) == pytest.approx(own["change"], abs=1e-5)  # all four rollouts are shown


def test_all_updates_share_one_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = trained(tmp_path, algorithm={"type": "grpo", "mini_batches": 1, "kl_coef": 0.1})
    made = Mock(side_effect=make_reference)
    monkeypatch.setattr("calibrl_core.train.make_reference", made)
    _, more, _ = compared(tmp_path, settings, {"kl_coef": 1.0}, {"kl_coef": 0.2})["updates"]
    assert (made.call_count, more["changes"]) == (1, {"kl_coef": 1.0})


@pytest.mark.slow
def test_the_order_of_the_variants_changes_nothing(tmp_path: Path) -> None:
    settings = trained(tmp_path)
    one, other = {"negative_slope": 0.0}, {"type": "dr_grpo"}
    first = compared(tmp_path, settings, one, other)["updates"]
    second = compared(tmp_path, settings, other, one)["updates"]
    assert [{**update, "name": ""} for update in (first[0], first[2], first[1])] == [
        {**update, "name": ""} for update in second
    ]


@pytest.mark.slow
def test_a_later_update_of_the_step_follows_those_before_it(tmp_path: Path) -> None:
    settings = trained(tmp_path, algorithm={**OWN, "mini_batches": 2})
    norms = [compared(tmp_path, settings, {}, update=number)["updates"][0]["gradient_norm"] for number in (0, 1)]
    mean = of_type(tmp_path, "metrics")[1]["values"]["loss/grad_norm"]
    assert sum(norms) / 2 == pytest.approx(mean, rel=1e-5)
    with pytest.raises(DataError, match="own makes 2 updates per pass; choose one of 0 to 1"):
        compared(tmp_path, settings, {}, update=2)


def test_the_own_update_has_the_moved_guidance(tmp_path: Path) -> None:
    control = {"low": 20, "high": 30, "factor": 2, "maximum": 4}
    settings = trained(tmp_path, algorithm={**OWN, "guidance_control": control})
    found = compared(tmp_path, settings, {"negative_slope": 0.1}, {"guidance_coef": 0.25})
    assert found["updates"][1]["changes"] == {"negative_slope": 0.1}
    assert found["updates"][2]["changes"] == {"guidance_coef": 0.25}
    norm = of_type(tmp_path, "metrics")[1]["values"]["loss/grad_norm"]
    assert found["updates"][0]["gradient_norm"] == pytest.approx(norm, rel=1e-6)


@pytest.mark.slow
def test_luffy_and_kl_can_be_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, trained(tmp_path), {"type": "luffy", "mix_ratio": 1.0}, {"kl_coef": 0.5})
    assert all(update["gradient_norm"] > 0 for update in found["updates"])
    assert found["updates"][1]["gradient_cosine"] < 0.999


@pytest.mark.slow
def test_the_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    settings = trained(tmp_path)
    folder = tmp_path / "checkpoints" / "step-000001"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    compared(tmp_path, settings, {"type": "grpo"})
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([{"name": "a", "algorithm": {"type": "sft"}}], "variants.0: sft does not learn from rollouts"),
        ([{"name": "a", "algorithm": OWN}, {"name": "a", "algorithm": OWN}], "two have one name"),
        ([{"name": "a", "algorithm": {**OWN, "mini_batches": 3}}], "variants.0: algorithm.mini_batches .3. must not"),
    ],
)
def test_variants_that_do_not_fit_are_refused(variants: Any, message: str) -> None:
    given = json.loads(config(algorithm=OWN).model_dump_json())
    with pytest.raises(ValidationError, match=message):
        WhatIfConfig.model_validate(given | {"variants": variants, "checkpoint": {"path": "/x"}})


def test_another_algorithm_takes_over_common_settings() -> None:
    own = {**OWN, "clip_high": 0.4}
    grpo = changed_algorithm(own, {"type": "grpo"}).model_dump()
    assert (grpo["type"], grpo["clip_high"], grpo["mini_batches"]) == ("grpo", 0.4, 1)
    assert "guidance_coef" not in grpo
    with pytest.raises(ValueError, match="there is no algorithm 'none'"):
        changed_algorithm(own, {"type": "none"})
