"""Shared parts of the contract: names, records, pages."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
MONTH = 31 * 86_400.0  # seconds
MOST = 1_000_000  # of what a project may have; a table's integers hold no more than 2e9
Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._\-]*$")]
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9\-]*$")]
Label = Annotated[str, Field(max_length=512)]
LabelKey = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")]
Priority = Literal["low", "normal", "high"]


class Record(BaseModel):
    """Something that the service returns. Built from a table row or from JSON."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """One page of a list. While `has_more`, send `after` with the cursor of the last item."""

    data: list[T]
    has_more: bool
