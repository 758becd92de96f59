"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): groups that an algorithm refuses are replaced by groups of
other prompts. Which groups it refuses is the algorithm's hook `keeps_groups`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from calibrl_core.data.schema import Example
from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score


@dataclass(frozen=True)
class ScoredRollouts:
    """P prompts with G scored rollouts each."""

    examples: Sequence[Example]  # P
    rollouts: Rollouts  # P * G rows
    scores: list[Score]  # P * G

    @property
    def passed(self) -> Tensor:
        """`[P, G]` bool."""
        device = self.rollouts.mask.device
        return torch.tensor([score.passed for score in self.scores], device=device).view(len(self.examples), -1)

    def complete(self, needed: Collection[str]) -> Tensor:
        """Return which groups have all verdicts of the verifiers with these labels, `[P]` bool."""
        has_all = [not {*score.failed} & {*needed} for score in self.scores]
        device = self.rollouts.mask.device
        return torch.tensor(has_all, device=device).view(len(self.examples), -1).all(-1)

    def groups(self, prompts: Sequence[int]) -> ScoredRollouts:
        """Return the groups of these prompts (indices), in this order."""
        size = self.rollouts.group_size
        rows = [row for prompt in prompts for row in range(prompt * size, (prompt + 1) * size)]
        every = self.rollouts
        return ScoredRollouts(
            examples=[self.examples[prompt] for prompt in prompts],
            rollouts=Rollouts(
                tokens=every.tokens[rows],
                mask=every.mask[rows],
                logprobs=every.logprobs[rows],
                sampler_logprobs=every.sampler_logprobs[rows],
                entropies=every.entropies[rows],
                truncated=every.truncated[rows],
                texts=[every.texts[row] for row in rows],
                group_size=size,
            ),
            scores=[self.scores[row] for row in rows],
        )


def replace_groups(
    first: ScoredRollouts,
    keeps: Callable[[ScoredRollouts], Tensor],
    draw: Callable[[int, int], ScoredRollouts | None],
    attempts: int,
    complete: Callable[[ScoredRollouts], Tensor],
) -> ScoredRollouts:
    """Return at least as many groups as `first` has: all that `keeps` accepts, then refused groups of `first` if too
    few. Groups that are not complete are never returned, so that there can be fewer.

    Each call of `draw` asks for as many prompts as are probably needed, by the share of groups accepted so far.

    Args:
        first: the groups that the step sampled.
        keeps: which groups to keep, `[P]` bool.
        draw: `draw(attempt, count)` samples at most `count` other prompts; attempts count from 1. None: no prompt is
            left.
        attempts: the largest number of calls of `draw`.
        complete: which groups have all verdicts that they need, `[P]` bool.
    """

    def chosen(groups: ScoredRollouts) -> list[int]:
        return _places(keeps(groups) & complete(groups))

    size = sampled = len(first.examples)
    kept_prompts = chosen(first)
    kept = first.groups(kept_prompts)
    refused = first.groups(sorted({*_places(complete(first))} - {*kept_prompts}))
    for attempt in range(1, attempts + 1):
        missing = size - len(kept.examples)
        if missing <= 0 or (more := draw(attempt, _needed(missing, len(kept.examples), sampled, size))) is None:
            break
        sampled += len(more.examples)
        kept = concatenate(kept, more.groups(chosen(more)))
    missing = size - len(kept.examples)
    return concatenate(kept, refused.groups(range(min(missing, len(refused.examples)))))


def _needed(missing: int, accepted: int, sampled: int, most: int) -> int:
    """Return how many prompts to sample for `missing` groups if `accepted` of `sampled` were; at most `most`."""
    return most if accepted == 0 else min(most, -(-missing * sampled // accepted))


def _places(chosen: Tensor) -> list[int]:
    return chosen.nonzero().squeeze(-1).tolist()


def concatenate(first: ScoredRollouts, second: ScoredRollouts) -> ScoredRollouts:
    """Return the groups of both, `first`'s before `second`'s; tokens are padded to the longer of the two."""
    if not first.examples or not second.examples:
        return first if first.examples else second
    a, b = first.rollouts, second.rollouts
    width = max(a.mask.shape[1], b.mask.shape[1])

    def stacked(*parts: Tensor) -> Tensor:
        return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])  # [B, T]

    return ScoredRollouts(
        examples=[*first.examples, *second.examples],
        rollouts=Rollouts(
            tokens=stacked(a.tokens, b.tokens),
            mask=stacked(a.mask, b.mask),
            logprobs=stacked(a.logprobs, b.logprobs),
            sampler_logprobs=stacked(a.sampler_logprobs, b.sampler_logprobs),
            entropies=stacked(a.entropies, b.entropies),
            truncated=torch.cat([a.truncated, b.truncated]),
            texts=[*a.texts, *b.texts],
            group_size=a.group_size,
        ),
        scores=[*first.scores, *second.scores],
    )
