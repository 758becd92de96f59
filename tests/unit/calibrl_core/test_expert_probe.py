"""The expert probe: the same validation experts at every validation."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.evaluation import expert_probe
from calibrl_core.evaluation.expert_probe import MAX_EXPERTS, ExpertProbe
from calibrl_core.models.policy import Policy

CONFIG = TrainConfig.model_validate(
    {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "steps": 1,
        "rollout": {"temperature": 2.0, "max_completion_tokens": 12},
    }
)


def example(number: int, expert: str | None = "e") -> Example:
    return Example(id=str(number), question=f"question {number}", answer="1", expert=expert)


def test_it_takes_examples_with_an_expert_spread_over_the_data() -> None:
    assert ExpertProbe([example(0, None), example(1), example(2, None), example(3)], CONFIG).rows == [1, 3]
    rows = ExpertProbe([example(number) for number in range(10 * MAX_EXPERTS)], CONFIG).rows
    assert rows == list(range(0, 10 * MAX_EXPERTS, 10))


def test_probe_metrics_match_values_computed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two experts: of two tokens, -1.0 and -2.0, and of one token, -6.0; the example between them has none."""
    mask = torch.tensor([[True, True], [True, False]])
    logprobs = torch.tensor([[-1.0, -2.0], [-6.0, 0.0]])
    monkeypatch.setattr(expert_probe, "logprobs_in_parts", lambda *given: (logprobs, torch.zeros(2, 2)))
    policy: Any = SimpleNamespace(tokenize_experts=lambda examples, limit: (mask.long(), mask))
    own = np.array([[-0.5, -1.5], [math.nan, math.nan], [-2.0, -4.0]])
    found = ExpertProbe([example(0), example(1, None), example(2)], CONFIG).measure(policy, own)
    assert found["expert/probe_nll"] == pytest.approx(9.0 / 3)  # a token is a token
    # (-1.0 - -1.5) and (-3.0 - -6.0): a prompt is a prompt
    assert found["expert/probe_gap"] == pytest.approx((0.5 + 3.0) / 2)


def test_without_experts_there_is_nothing_to_measure() -> None:
    no_policy: Any = None
    assert ExpertProbe([example(0, None)], CONFIG).measure(no_policy, np.zeros((1, 2))) == {}


def test_a_uniform_model_gives_expert_and_own_tokens_equal_log_probs(policy: Policy, examples: list[Example]) -> None:
    """A head of zeros makes every allowed token equally likely: 1 / allowed, at any temperature."""
    head = policy.model.get_output_embeddings().weight
    kept, head.data = head.data, torch.zeros_like(head.data)
    uniform = math.log(int((~policy.banned).sum()))
    try:
        found = ExpertProbe(examples, CONFIG).measure(policy, np.full((len(examples), 3), -uniform))
    finally:
        head.data = kept
    assert found["expert/probe_nll"] == pytest.approx(uniform, abs=1e-5)
    assert found["expert/probe_gap"] == pytest.approx(0.0, abs=1e-5)
