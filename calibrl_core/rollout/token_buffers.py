"""Buffers of sampled tokens, shared by the rollout engines, and their conversion to `Rollouts`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts


@dataclass(frozen=True)
class TokenBuffers:
    """Per-token values, `[R, T]` each; see `Rollouts`."""

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    entropies: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, policy: Policy) -> TokenBuffers:
        """Return buffers filled with padding, on the policy's device."""
        return cls(
            torch.full((rows, width), policy.pad_id, device=policy.device),
            torch.zeros((rows, width), dtype=torch.bool, device=policy.device),
            torch.zeros((rows, width), device=policy.device),
            torch.zeros((rows, width), device=policy.device),
        )

    def cut(self) -> TokenBuffers:
        """Return the buffers cut to the length of the longest row."""
        longest = int(self.mask.sum(-1).max())
        return TokenBuffers(*(values[:, :longest] for values in vars(self).values()))

    def rollouts(self, policy: Policy, group_size: int) -> Rollouts:
        """Return `Rollouts`, with the truncated rows and the texts derived from the tokens."""
        ended = torch.isin(self.tokens, torch.tensor(sorted(policy.stop_ids), device=policy.device)) & self.mask
        lengths = (self.mask & ~ended).sum(-1).tolist()
        words = [row[:length] for row, length in zip(self.tokens.tolist(), lengths, strict=True)]
        texts = policy.tokenizer.batch_decode(words, skip_special_tokens=False)
        return Rollouts(
            **vars(self),
            truncated=~ended.any(-1),
            texts=[policy.encoder.opening + text for text in texts],
            group_size=group_size,
        )
