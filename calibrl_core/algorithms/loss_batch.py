"""Input and output of an algorithm's loss: `LossBatch` and `TokenLosses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LossBatch:
    """Rows of one micro-batch. `[B, T]`: rows, completion tokens (right-padded).

    Rows are rollouts. Only if the algorithm `learns_from_experts` there are expert rows too, marked by `is_expert`.
    """

    logprobs: Tensor  # [B, T] float, nats, current policy, carries the gradient
    old_logprobs: Tensor  # [B, T] float, nats, the policy before the step's first update
    advantages: Tensor  # [B] float, one per row
    completion_mask: Tensor  # [B, T] bool, True = the token counts
    passed: Tensor  # [B] bool, the answer is correct; format rewards do not count
    is_expert: Tensor  # [B] bool, the row is an expert's trajectory
    # [B, E] float, nats, E: the longest expert. The policy's own log-probability of the t-th token of the row's expert,
    # before the step's first update, without gradient.
    expert_logprobs: Tensor | None = None
    expert_mask: Tensor | None = None  # [B, E] bool, True = the expert has a token at this position


@dataclass(frozen=True)
class TokenLosses:
    """Losses per token, not yet masked or averaged, and the tokens on which each clip took over."""

    policy: Tensor  # [B, T] float
    guidance: Tensor | None  # [B, T] float, not yet multiplied by its weight; None: the algorithm has no guidance
    clipped_low: Tensor  # [B, T] bool, ratio below 1 - clip_low with A < 0
    clipped_high: Tensor  # [B, T] bool, ratio above 1 + clip_high with A > 0
    clipped_dual: Tensor  # [B, T] bool, the dual clip took over


def to_width(rows: Tensor, width: int) -> Tensor:
    """Return rows `[B, E]` as `[B, width]`: cut, or padded with 0 (False) on the right."""
    fitted = rows.new_zeros((rows.shape[0], width))
    shared = min(width, rows.shape[1])
    fitted[:, :shared] = rows[:, :shared]
    return fitted
