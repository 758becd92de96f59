"""Widths of buckets of steps."""

from typing import Annotated

from fastapi import Query

from jobs.errors import FieldError, Invalid

MOST = 5000  # buckets over one range
Width = Annotated[int | None, Query(ge=1, le=2**30, description="Steps per bucket, a power of two. Replaces `points`.")]


def chosen_width(given: int | None, first: int, last: int, points: int) -> int:
    """The width given, else the smallest power of two with which buckets from the one with step `first` to the one with
    `last` are at most `points`.

    Raises:
        Invalid: the width given is no power of two, or makes more than `MOST` buckets.
    """
    if given is None:
        width = 1
        while last // width - first // width >= points:
            width *= 2
        return width
    if given & (given - 1):
        raise refusal("width", f"{given} is no power of two")
    if last // given - first // given >= MOST:
        raise refusal("width", f"makes more than {MOST} buckets of this range; leave it out, and all will fit `points`")
    return given


def refusal(field: str, message: str) -> Invalid:
    """Return the error for one field that cannot be accepted."""
    return Invalid("1 field can't be accepted.", (FieldError(field, message),))
