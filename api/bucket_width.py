"""Widths of buckets of steps."""

from typing import Annotated

from fastapi import Query

from jobs.errors import FieldError, Invalid

MOST = 5000  # buckets over one range
Width = Annotated[int | None, Query(ge=1, le=2**30, description="Steps per bucket, a power of two. Replaces `points`.")]


def chosen_width(requested: int | None, first: int, last: int, points: int) -> int:
    """Return the requested width, else the smallest power of two that gives at most `points` buckets.

    The buckets range from the one with step `first` to the one with step `last`.

    Raises:
        Invalid: the requested width is not a power of two, or gives more than `MOST` buckets.
    """
    if requested is None:
        width = 1
        while last // width - first // width >= points:
            width *= 2
        return width
    if requested & (requested - 1):
        raise refusal("width", f"{requested} is not a power of two; use 1, 2, 4, ...")
    if last // requested - first // requested >= MOST:
        raise refusal("width", f"gives more than {MOST} buckets in this range; use a greater width, or `points`")
    return requested


def refusal(field: str, message: str) -> Invalid:
    """Return the error for one field that cannot be accepted."""
    return Invalid("1 field can't be accepted.", (FieldError(field, message),))
