"""The notices of a plan, from the spec alone."""

import pytest

from calibrl import presets
from calibrl.schemas import DataFacts, TrainSpec
from jobs.planning import advice

FACTS = DataFacts(field="data", name="digits", rows=9, checked=9, with_expert=9, with_images=9)


def spec(lr: float) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "kind": "train",
            "name": "x",
            "model": {"builtin": "tiny-vlm"},
            "data": {"builtin": "digits"},
            "algorithm": {"type": "grpo", "mini_batches": 1},
            "optimizer": {"lr": lr},
            "prompts_per_step": 1,
            "steps": 200,
        }
    )


def rate_notices(lr: float) -> list[str]:
    return [each.message for each in advice.warnings(spec(lr), [FACTS], None) if each.field == "optimizer.lr"]


def test_a_rate_far_above_the_preset_is_noticed() -> None:
    assert rate_notices(1e-4) == []
    (message,) = rate_notices(1e-3)  # the preset's is 1e-4
    assert "10 times" in message


def test_an_algorithm_needs_no_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "names", lambda: ["calibrl"])
    advice._preset_lr.cache_clear()
    try:
        assert rate_notices(1e-3) == []
    finally:
        advice._preset_lr.cache_clear()
