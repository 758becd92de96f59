"""Both paths of the memory benchmark compute the same, at a size that a test can afford."""

import pytest
import torch

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
