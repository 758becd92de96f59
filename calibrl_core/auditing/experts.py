"""Log-probabilities of experts under the policy, and the gaps of the policy's completions to them, as CalibRL's loss
sees both.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibrl_core.algorithms import CalibRL
from calibrl_core.algorithms.loss_batch import LossBatch
from calibrl_core.auditing.settings import AuditRollout
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.rollout.served import PASS_TOKENS
from calibrl_core.step.token_logprobs import logprobs_in_parts


@dataclass(frozen=True)
class _Limits:
    """Limits of a forward pass over experts: those of an engine that scores completions."""

    micro_batch_tokens: int = PASS_TOKENS
    micro_batch_rows: int | None = None


@dataclass(frozen=True)
class ScoredExperts:
    """R experts under the policy. E: tokens of the longest one that are not cut."""

    lengths: list[int]  # R, tokens of the whole expert, with the end of its turn
    mask: Tensor  # [R, E] bool, True = the expert has a token here
    logprobs: Tensor  # [R, E] float, nats; 0 where masked

    @property
    def nll(self) -> list[float]:
        """Negative log-likelihood of each expert in nats, without tokens that are cut."""
        return (-self.logprobs.double().sum(-1)).tolist()

    @property
    def nll_per_token(self) -> list[float]:
        """The same per token."""
        return (-self.logprobs.double().sum(-1) / self.mask.sum(-1)).tolist()


@torch.no_grad()
def score_experts(
    policy: Policy, examples: Sequence[Example], owners: Sequence[int], texts: Sequence[str], rollout: AuditRollout
) -> ScoredExperts:
    """Return texts as experts under the policy. `owners`: the example of each text, an index into `examples`."""
    answered = [replace(examples[owner], expert=text) for owner, text in zip(owners, texts, strict=True)]
    tokens, whole = policy.tokenize_experts(answered, sys.maxsize)
    limit = rollout.max_completion_tokens
    tokens, mask = tokens[:, :limit], whole[:, :limit]
    logprobs, _ = logprobs_in_parts(policy, examples, owners, tokens, mask, _Limits(), rollout.temperature)
    return ScoredExperts(whole.sum(-1).tolist(), mask, logprobs)


def gaps_to_experts(
    algorithm: CalibRL, rollouts: Rollouts, passed: Tensor, experts: ScoredExperts
) -> tuple[Tensor, Tensor]:
    """Return the gap of each token of `rollouts`, `[B, T]` nats, and the tokens that have one, `[B, T]` bool.

    passed: `[B]` bool. experts: one per prompt of the rollouts.
    """
    mask = rollouts.mask & ~rollouts.truncated[:, None] if algorithm.mask_truncated else rollouts.mask
    size = rollouts.group_size
    batch = LossBatch(
        logprobs=rollouts.logprobs,
        old_logprobs=rollouts.logprobs,
        advantages=rollouts.logprobs.new_zeros(len(mask)),
        completion_mask=mask,
        passed=passed,
        is_expert=torch.zeros_like(passed),
        expert_logprobs=experts.logprobs.repeat_interleave(size, dim=0),
        expert_mask=experts.mask.repeat_interleave(size, dim=0),
    )
    return algorithm.expert_gaps(batch)
