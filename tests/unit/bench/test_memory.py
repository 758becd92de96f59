"""Both paths of the memory benchmark at a size that a test can afford."""

import pytest
import torch
from rich.console import Console

from bench import memory
from calibrl_core.models.policy import Policy

SMALL = memory.Size(vocabulary=20_000, tokens=64)  # logits of all tokens: 41 MB


@pytest.fixture(scope="module")
def policy() -> Policy:
    return memory.make_policy(SMALL)


def test_both_paths_compute_the_same_log_probabilities(policy: Policy) -> None:
    policy.banned.zero_()  # the plain path's softmax runs over all tokens
    batch = memory.make_batch(policy, memory._config(SMALL), 16, SMALL.vocabulary)
    rollouts = batch.rollouts
    ours = policy.logprobs([memory.EXAMPLE], [0] * memory.ROWS, rollouts.tokens, rollouts.mask, 1.0)
    torch.testing.assert_close(ours, memory.plain_logprobs(policy, rollouts.tokens), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_plain_path_holds_all_logits_and_more() -> None:
    """Logits, their softmax and its gradient: at the peak at least two of them, each the size of all logits."""
    peak, _ = memory.measure(SMALL, Console(quiet=True))
    logits = 4 * memory.ROWS * SMALL.tokens * SMALL.vocabulary / 1e9
    assert peak.peer > 2 * logits
    assert 0 < peak.ours < peak.peer
