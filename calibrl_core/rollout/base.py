"""What a rollout engine is, and what it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from calibrl_core.data.schema import Example


@dataclass(frozen=True)
class Rollouts:
    """Completions of P prompts, G each, flattened: row `p * G + g`. `[B, T]` with B = P * G, right-padded."""

    tokens: Tensor  # [B, T] long; the stop token, where reached, is the last one that counts
    mask: Tensor  # [B, T] bool, True = the token counts
    logprobs: Tensor  # [B, T] float, nats, under the distribution that was sampled from; 0 where masked
    entropies: Tensor  # [B, T] float, nats, of that distribution; 0 where masked
    truncated: Tensor  # [B] bool: cut at the limit, no stop token
    texts: list[str]  # without the stop token
    group_size: int


class RolloutEngine(Protocol):
    """Samples completions from the policy as it is now."""

    def generate(
        self,
        examples: Sequence[Example],
        *,
        group_size: int,
        temperature: float,
        max_tokens: int,
        seed: Sequence[int],
        first_row: int = 0,
    ) -> Rollouts:
        """`group_size` completions for each example; temperature 0 is greedy. The same seed gives the same ones.

        `first_row`: the number of the first row among all that are sampled with this seed, where others sample theirs
        elsewhere: a row's completion depends on its number, and not on which rows keep it company.
        """
