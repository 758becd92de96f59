"""Sampling during the update, with a real server: a run learns as much as with turns.

`make test-vllm` runs this in its own environment; elsewhere it is skipped.
"""

from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from calibrl_core.distributed.ranks import ALONE
from calibrl_core.verifiers.scorer import Scorer
from tests.process.calibrl_core import run_ranks
from tests.support.training import of_type, score_by_letters

CONFIG: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 64},
    "algorithm": {"type": "grpo", "mini_batches": 1},
    "optimizer": {"lr": 1e-3},
    "prompts_per_step": 4,
    "steps": 25,
    "checkpoints": {"every_steps": 25},
}
ROLLOUT = {"group_size": 8, "max_completion_tokens": 16, "engine": "vllm_server", "batch_tokens": 10_000}
pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")


def test_rollouts_of_weights_one_step_before_teach_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reward is the share of letters: about 0.5 for a fresh model."""
    monkeypatch.setattr(Scorer, "grade", score_by_letters)
    ends = []
    for staleness in (0, 1):
        folder = tmp_path / str(staleness)
        run_ranks.run(folder, CONFIG | {"rollout": {**ROLLOUT, "max_staleness": staleness}}, None, ALONE)
        steps = [event["values"] for event in of_type(folder, "metrics")]
        rewards = [step["reward/mean"] for step in steps]
        ends.append(mean(rewards[-5:]))
        assert ends[-1] > mean(rewards[:2]) + 0.2
        behind = [step["kl/sampler"] for step in steps[1:]]
        assert (min(behind) > 1e-5) if staleness else (max(behind) < 1e-9)
    assert ends[1] == pytest.approx(ends[0], abs=0.1)
