"""The tiny model, a step's batch, rewards that vary, and a small image."""

from typing import Any

import pytest
import torch

from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import Experts, StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.run import surroundings
from calibrl_core.step.advantages import group_advantages
from calibrl_core.verifiers.scorer import Score, Scorer
from tests.support import pictures
from tests.support.metric_names import registered_metrics
from tests.support.tiny_model import engine, examples, policy, text_examples, text_policy
from tests.support.training import score_by_hash
from tests.support.updates import GROUP

__all__ = ["engine", "examples", "policy", "registered_metrics", "text_examples", "text_policy"]


@pytest.fixture(autouse=True)
def without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs record no commit: a unit test starts no process."""
    monkeypatch.setattr(surroundings, "_git", lambda root, *arguments: None)


@pytest.fixture
def png() -> bytes:
    return pictures.png(size=4)


@pytest.fixture
def rewarding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hash of each completion decide: a fresh model is never right, so that nothing could be learned."""
    monkeypatch.setattr(Scorer, "grade", score_by_hash)


@pytest.fixture
def batch(engine: SharedPrefillEngine, examples: list[Example]) -> Any:
    """Six groups of three: in four of them one rollout passes, in two none does."""
    rollouts = engine.generate(examples, SamplingRequest(group_size=GROUP, temperature=1.0, max_tokens=10, seed=[2]))
    passed = torch.tensor([[True, False, False]] * 4 + [[False] * 3] * 2)
    rewards = passed.double()
    generator = torch.Generator().manual_seed(0)
    longest = rollouts.mask.shape[1] + 3  # half of the experts are longer than every rollout
    expert_mask = torch.ones((len(examples), longest), dtype=torch.bool)
    expert_mask[::2, 7:] = False
    logprobs = -5 * torch.rand(expert_mask.shape, generator=generator) * expert_mask
    tokens = torch.zeros(expert_mask.shape, dtype=torch.long)
    return StepBatch(
        examples=examples,
        rollouts=rollouts,
        scores=[Score({"math": float(one)}, float(one), bool(one), bool(one)) for one in passed.flatten()],
        rewards=rewards,
        passed=passed,
        advantages=group_advantages(rewards, normalise_by_std=False),
        experts=Experts(tokens, expert_mask, logprobs, torch.zeros_like(logprobs)),
    )


@pytest.fixture
def rows_run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Record the number of rows of each forward pass of an update."""
    counts = []
    plain = Policy.token_logprobs

    def counting(self: Any, examples: list[Example], owners: Any, *rest: Any, **named: Any) -> Any:
        counts.append(len(owners))
        return plain(self, examples, owners, *rest, **named)

    monkeypatch.setattr(Policy, "token_logprobs", counting)
    return counts
