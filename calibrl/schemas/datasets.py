"""Data sets that the service keeps, or knows by their name on the hub."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Name, Record, Slug
from calibrl_core.data.schema import Columns, HubSource
from calibrl_core.settings_base import Closed

ColumnName = Field(None, min_length=1, max_length=200)


class UploadOptions(Closed):
    """What is said of a file that is uploaded. Its form is known by its columns, unless some are named here."""

    name: Name | None = Field(None, description="for people, and for results; None: the file's, where it is sent along")
    project: Slug = "default"
    question: str | None = ColumnName
    images: str | None = ColumnName
    answer: str | None = ColumnName
    expert: str | None = ColumnName

    @property
    def columns(self) -> Columns:
        """Which column holds what."""
        return Columns(**self.model_dump(include={*Columns.model_fields}, exclude_none=True))


class HubDataset(HubSource):
    """A data set of the Hugging Face hub. Workers download it; the service only notes the name."""

    name: Name = Field(description="for people")
    project: Slug = "default"


class Dataset(Record):
    """A data set: a file that was uploaded, or the name of one on the hub (`hub`), of which no more is known."""

    id: UUID = Field(description="a job names it so: `data: {dataset: <id>}`")
    project: str
    user: str = Field(description="who uploaded or registered it")
    name: str
    format: Literal["parquet", "jsonl"] | None
    sha256: str | None = Field(description="of the file")
    bytes: int | None
    rows: int | None
    columns: Columns = Field(description="which column holds what, where it is of the plain form")
    has_columns: list[str] | None = Field(description="the columns that its rows have")
    has_experts: bool | None = Field(description="whether any row has an expert")
    hub: HubSource | None
    created_at: datetime


class PreviewRow(Record):
    """A row as a job would read it; long texts are cut."""

    row: int = Field(description="counted from 1")
    earlier: list[str] = Field(description="messages before the question")
    question: str
    answer: str
    expert: str | None
    data_source: str | None
    images: list[str] = Field(description="the first few, small, as data: addresses (PNG)")
    image_count: int
