"""Numbers and texts of a step's rollouts for people to read: rounded, and of bounded length."""

import math

import torch
from torch import Tensor

from calibrl_core.diagnostics.base import StepBatch

DIGITS = 6
CUT = " [...] "  # replaces the middle of a long text


def rounded(values: Tensor) -> list[float]:
    """Return `values` `[N]`, all finite."""
    return [round(value, DIGITS) for value in values.tolist()]


def measured(values: Tensor) -> list[float | None]:
    """Return `values` `[N]` with None in place of those that are not finite."""
    return [round(value, DIGITS) if math.isfinite(value) else None for value in values.tolist()]


def known_gaps(batch: StepBatch, row: int, places: Tensor) -> list[float | None]:
    """Return the gaps of a rollout in nats, None for a token without one. places: `[N]` long, of its tokens."""
    return measured(batch.gaps[row, places].where(batch.gap_mask[row, places], torch.nan))


def shortened(text: str, limit: int) -> str:
    """Return the beginning and the end of a text of more than `limit` characters; the answer is usually at the end."""
    if len(text) <= limit:
        return text
    half = (limit - len(CUT)) // 2
    return text[:half] + CUT + text[-half:]
