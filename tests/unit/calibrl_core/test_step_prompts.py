"""Prompts of a step are encoded once, in every learner, whatever the cache of encoded prompts holds."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.report import EventFile
from calibrl_core.step.learners import ReinforcementLearner, SupervisedLearner
from calibrl_core.train import train
from tests.support.training import config

ALGORITHMS = {
    "grpo": {"type": "grpo", "mini_batches": 2},
    "grpo with kl": {"type": "grpo", "mini_batches": 2, "kl_coef": 0.1},
    "calibrl": {"type": "calibrl", "mini_batches": 2},
    "dapo": {"type": "dapo", "mini_batches": 1, "max_resamples": 2},
    "sft": {"type": "sft"},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count the calls of the processor per step and prompt, without a cache that could hold two prompts."""
    monkeypatch.setattr("calibrl_core.models.encoding.ENCODED_MEGABYTES", 0)
    counts: list[Counter[str]] = []
    processed = PromptEncoder.processed

    def counting(self: PromptEncoder, example: Example) -> Any:
        if counts:
            counts[-1][example.id] += 1
        return processed(self, example)

    monkeypatch.setattr(PromptEncoder, "processed", counting)
    for learner in (ReinforcementLearner, SupervisedLearner):

        def counted(self: Any, *arguments: Any, plain: Any = learner.step) -> Any:
            counts.append(Counter())
            return plain(self, *arguments)

        monkeypatch.setattr(learner, "step", counted)
    return counts


@pytest.mark.usefixtures("rewarding")
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_a_step_encodes_each_of_its_prompts_once(tmp_path: Path, calls: Any, algorithm: Any) -> None:
    report = EventFile(tmp_path)
    train(config(algorithm=algorithm, steps=2, prompts_per_step=3, micro_batch_rows=2), report, lambda: False)
    report.close()
    assert len(calls) == 2
    for step in calls:
        assert len(step) >= 3
        assert set(step.values()) == {1}
