"""Truncated importance sampling, for rollouts of an engine whose distribution differs slightly from the trainer's.

Another engine's kernels give other logits, so a policy gradient from its samples is biased. With p the trainer's policy
before the step's first update and q the engine's, the policy loss of each token is multiplied by

    min(p(token) / q(token), cap)

The cap limits the weight of a token that the engine was very unlikely to sample. The clipped ratio compares with p,
which the trainer computes itself: the clipped ratio does not use q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.step.token_logprobs import logprobs_in_parts


@torch.no_grad()
def with_trainer_logprobs(
    policy: Policy, examples: Sequence[Example], rollouts: Rollouts, config: TrainConfig
) -> Rollouts:
    """Return the rollouts with log-probabilities and entropies `[B, T]` computed by the trainer."""
    policy.model.eval()
    owners = [row // rollouts.group_size for row in range(len(rollouts.tokens))]
    logprobs, entropies = logprobs_in_parts(policy, examples, owners, rollouts.tokens, rollouts.mask, config)
    return replace(rollouts, logprobs=logprobs, entropies=entropies)


def importance_weights(logprobs: Tensor, sampler_logprobs: Tensor, cap: float) -> Tensor:
    """Return min(p / q, cap), `[B, T]`, from log p and log q `[B, T]` (nats); 1 where both are 0, as under the mask."""
    return (logprobs - sampler_logprobs).exp().clamp(max=cap)
