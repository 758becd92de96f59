"""Settings refuse what they should, and name the field."""

from typing import Any

import pytest
from pydantic import ValidationError

from calibrl_core.algorithms import CalibRL
from calibrl_core.config import EvaluateConfig, TrainConfig

GOOD = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 3}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": "5"}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"optimizer": {"lr": True}}, "lr"),
        ({"optimizer": {"lr": float("nan")}}, "lr"),
        ({"micro_batch_rows": "4"}, "micro_batch_rows"),
        ({"rollout": {"group_size": 1}}, "group_size"),
        ({"unknown": 1}, "unknown"),
        ({"algorithm": {"type": "ppo"}}, "algorithm"),
        ({"algorithm": {"type": "grpo", "guidance_coef": 0.1}}, "guidance_coef"),
        ({"model": {"path": "/m", "trust_remote_code": True}}, "trust_remote_code"),
        ({"rewards": [{"type": "format"}]}, "verifier that judges"),
        ({"prompts_per_step": 2, "algorithm": {"type": "grpo", "mini_batches": 3}}, "mini_batches"),
        ({"algorithm": {"type": "calibrl", "micro_batch_mean": True}}, "micro_batch_rows"),
        (
            {"algorithm": {"type": "grpo", "micro_batch_mean": True, "mini_batch_rows": 5}, "micro_batch_rows": 3},
            "multiple of micro_batch_rows",
        ),
        ({"algorithm": {"type": "dapo", "overlong_buffer": 5000}}, "overlong_buffer"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainConfig.model_validate(GOOD | changes)


def test_results_are_kept_by_name_so_names_differ() -> None:
    twice = [{"builtin": "digits", "split": "test"}] * 2
    with pytest.raises(ValidationError, match="share a name"):
        EvaluateConfig.model_validate({"models": [{"builtin": "tiny-vlm"}], "data": twice})


def test_the_defaults_are_the_papers_run() -> None:
    config = TrainConfig.model_validate(GOOD)
    algorithm = config.algorithm
    assert isinstance(algorithm, CalibRL)
    assert (algorithm.type, algorithm.negative_slope, algorithm.guidance_coef) == ("calibrl", 0.5, 0.1)
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip) == (0.2, 0.2, 3.0)
    assert (config.prompts_per_step, config.rollout.group_size, algorithm.mini_batches) == (480, 10, 4)
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.max_grad_norm) == (1e-6, 0.01, 1.0)
    assert (config.rollout.temperature, config.rollout.max_completion_tokens) == (1.0, 4096)
    assert not algorithm.normalise_by_std
    assert (algorithm.kl_coef, algorithm.entropy_coef, algorithm.aggregation) == (0.0, 0.0, "token-mean")
