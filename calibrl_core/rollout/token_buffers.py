"""Buffers of sampled tokens, shared by the rollout engines, and their conversion to `Rollouts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.rollout.sampling import Drawn
from calibrl_core.rollout.stop_strings import StopStrings


@dataclass(frozen=True)
class TokenBuffers:
    """Per-token values, `[R, T]` each; see `Rollouts`."""

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    sampler_logprobs: Tensor
    entropies: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, policy: Policy) -> TokenBuffers:
        """Return buffers filled with padding, on the policy's device."""
        return cls(
            torch.full((rows, width), policy.pad_id, device=policy.device),
            torch.zeros((rows, width), dtype=torch.bool, device=policy.device),
            *(torch.zeros((rows, width), device=policy.device) for _ in range(3)),
        )

    def put(self, place: tuple[Tensor, Tensor], drawn: Drawn, counts: Tensor) -> None:
        """Write tokens at `place`, rows `[N]` and positions `[N]`. counts: `[N]` bool, False = the row has ended."""
        self.tokens[place] = drawn.tokens.where(counts, self.tokens[place])
        self.mask[place] = counts
        self.logprobs[place] = drawn.logprobs * counts
        self.sampler_logprobs[place] = drawn.sampler_logprobs * counts
        self.entropies[place] = drawn.entropies * counts

    def cut(self) -> TokenBuffers:
        """Return the buffers cut to the length of the longest row."""
        longest = int(self.mask.sum(-1).max())
        return TokenBuffers(*(values[:, :longest] for values in vars(self).values()))

    def rollouts(self, policy: Policy, group_size: int, stop: Sequence[str] = ()) -> Rollouts:
        """Return `Rollouts`, with the truncated rows and the texts derived from the tokens. `stop`: of the request."""
        ended = torch.isin(self.tokens, torch.tensor(sorted(policy.stop_ids), device=policy.device)) & self.mask
        lengths = (self.mask & ~ended).sum(-1).tolist()
        words = [row[:length] for row, length in zip(self.tokens.tolist(), lengths, strict=True)]
        texts = policy.tokenizer.batch_decode(words, skip_special_tokens=False)
        stopped = torch.tensor(StopStrings(policy.tokenizer, stop).end(words), device=policy.device)
        return Rollouts(
            **vars(self),
            truncated=~(ended.any(-1) | stopped),
            texts=[policy.encoder.opening + text for text in texts],
            group_size=group_size,
        )
