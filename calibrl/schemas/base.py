"""Shared parts of the contract: names, records, pages."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
HOUR, DAY, MONTH = 3600.0, 86_400.0, 31 * 86_400.0  # seconds
GIB = 2**30  # bytes
MAX_STEP = 2**31 - 1  # an integer of PostgreSQL
MAX_LIMIT = 1_000_000  # of a project; below the largest integer of PostgreSQL
Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._\-]*$")]
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9\-]*$")]
Label = Annotated[str, Field(max_length=512)]
LabelKey = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")]
JobKind = Literal["train", "evaluate", "audit", "what_if", "bisect"]
Priority = Literal["low", "normal", "high"]


class Record(BaseModel):
    """Something that the service returns. Built from a table row or from JSON."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """One page of a list. While `has_more`, send `after` with the cursor of the last item."""

    data: list[T]
    has_more: bool
