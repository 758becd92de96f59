"""The notices of a plan, from the spec alone."""

import pytest

from calibrl import presets
from calibrl.schemas import DataFacts, TrainSpec
from jobs.planning import advice

FACTS = DataFacts(field="data", name="digits", rows=9, checked=9, with_expert=9, with_images=9)


def spec(lr: float, **model: object) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "kind": "train",
            "name": "x",
            "model": {"builtin": "tiny-vlm", **model},
            "data": {"builtin": "digits"},
            "algorithm": {"type": "grpo", "mini_batches": 1},
            "optimizer": {"lr": lr},
            "prompts_per_step": 1,
            "steps": 200,
        }
    )


def rate_notices(lr: float, **model: object) -> list[str]:
    found = advice.warnings(spec(lr, **model), [FACTS], None)
    return [each.message for each in found if each.field == "optimizer.lr"]


def test_a_rate_far_above_the_preset_is_noticed() -> None:
    assert rate_notices(1e-4) == []
    (message,) = rate_notices(1e-3)  # the preset's is 1e-4
    assert "10 times" in message


def test_a_rate_for_all_weights_is_noticed_with_lora() -> None:
    assert rate_notices(1e-6) == rate_notices(1e-5, lora={}) == []
    (message,) = rate_notices(1e-6, lora={})
    assert message == "1e-06 is small for LoRA; about 0.0001 is usual"


def test_an_algorithm_needs_no_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "names", lambda: ["calibrl"])
    advice._preset_lr.cache_clear()
    try:
        assert rate_notices(1e-3) == []
    finally:
        advice._preset_lr.cache_clear()


def test_reinforcement_learning_from_random_weights_is_noticed() -> None:
    start = spec(1e-4).model_dump()
    warm = {**start, "model": {"from_job": "5b1d0c0e-6c5a-4f0e-9a43-000000000001"}}
    warming = {**start, "algorithm": {"type": "sft"}}
    found = [
        [notice.message for notice in advice.warnings(TrainSpec.model_validate(each), [FACTS], None)]
        for each in (start, warm, warming)
    ]
    said = [[message for message in messages if "tiny-vlm has random weights" in message] for messages in found]
    assert [len(messages) for messages in said] == [1, 0, 0]
    assert "preset sft" in said[0][0]


def test_a_weight_that_leaves_no_row_is_noticed() -> None:
    few = FACTS.model_copy(update={"rows": 4})
    data = [{"builtin": "digits", "rows": 4, "weight": weight} for weight in (0.1, 0.2)]  # 0.4 and 0.8 rows
    mixed = TrainSpec.model_validate({**spec(1e-4).model_dump(), "data": data})
    facts = [few.model_copy(update={"field": f"data.{place}"}) for place in range(2)]
    found = [notice for notice in advice.warnings(mixed, facts, None) if notice.field.endswith("weight")]
    assert [(notice.field, notice.message) for notice in found] == [
        ("data.0.weight", "the trainer refuses this: 0.1 leaves none of the 4 rows; raise it")
    ]
