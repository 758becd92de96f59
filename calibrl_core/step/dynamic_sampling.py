"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): groups that are all right or all wrong give way to others.

Keyed on correctness, never on a shaped reward: a format term or a length penalty would make a group look alive that has
nothing to teach about the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from calibrl_core.data.schema import Example
from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score


@dataclass(frozen=True)
class Sampled:
    """Prompts with their scored rollouts."""

    examples: Sequence[Example]  # P
    rollouts: Rollouts
    scores: list[Score]  # P * G

    @property
    def passed(self) -> Tensor:
        """`[P, G]` bool."""
        device = self.rollouts.mask.device
        return torch.tensor([score.passed for score in self.scores], device=device).view(len(self.examples), -1)

    def groups(self, chosen: Sequence[int]) -> Sampled:
        """Some of the prompts, in this order."""
        size = self.rollouts.group_size
        rows = [row for prompt in chosen for row in range(prompt * size, (prompt + 1) * size)]
        of = self.rollouts
        return Sampled(
            examples=[self.examples[prompt] for prompt in chosen],
            rollouts=Rollouts(
                tokens=of.tokens[rows],
                mask=of.mask[rows],
                logprobs=of.logprobs[rows],
                entropies=of.entropies[rows],
                truncated=of.truncated[rows],
                texts=[of.texts[row] for row in rows],
                group_size=size,
            ),
            scores=[self.scores[row] for row in rows],
        )


def fill_with_mixed(first: Sampled, draw: Callable[[int, int], Sampled], attempts: int) -> Sampled:
    """As many prompts as `first`, of which as many as could be found divide into right and wrong.
    `draw(attempt, count)` samples other prompts, at most `attempts` times (counted from 1)."""
    wanted = len(first.examples)
    kept = first.groups(_mixed(first))
    spare = first.groups(sorted({*range(wanted)} - {*_mixed(first)}))
    for attempt in range(1, attempts + 1):
        missing = wanted - len(kept.examples)
        if not missing:
            break
        more = draw(attempt, missing)
        kept = joined(kept, more.groups(_mixed(more)))
    return joined(kept, spare.groups(range(wanted - len(kept.examples))))


def _mixed(sampled: Sampled) -> list[int]:
    share = sampled.passed.float().mean(-1)
    return ((share > 0) & (share < 1)).nonzero().squeeze(-1).tolist()


def joined(first: Sampled, second: Sampled) -> Sampled:
    """The prompts of both, the second's behind the first's."""
    if not first.examples or not second.examples:
        return first if first.examples else second
    a, b = first.rollouts, second.rollouts
    width = max(a.mask.shape[1], b.mask.shape[1])

    def stacked(*rows: Tensor) -> Tensor:
        return torch.cat([pad(some, (0, width - some.shape[1])) for some in rows])

    return Sampled(
        examples=[*first.examples, *second.examples],
        rollouts=Rollouts(
            tokens=stacked(a.tokens, b.tokens),
            mask=stacked(a.mask, b.mask),
            logprobs=stacked(a.logprobs, b.logprobs),
            entropies=stacked(a.entropies, b.entropies),
            truncated=torch.cat([a.truncated, b.truncated]),
            texts=[*a.texts, *b.texts],
            group_size=a.group_size,
        ),
        scores=[*first.scores, *second.scores],
    )
