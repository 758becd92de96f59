"""Datasets that the service stores, or knows by their name on the Hugging Face hub."""

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from calibrl.schemas.base import Name, Record, Slug
from calibrl_core.data.schema import AUTO, FORMAT, Columns, FormatName, HubSource
from calibrl_core.settings.base import StrictSettings
from calibrl_core.verifiers.math import MathReward
from calibrl_core.verifiers.registry import Reward

ColumnName = Field(None, min_length=1, max_length=200)


class UploadOptions(StrictSettings):
    """Options of an upload."""

    name: Name | None = Field(None, description="Name in lists and results. None: the name of the file, if it is sent.")
    project: Slug = "default"
    question: str | None = ColumnName
    images: str | None = ColumnName
    answer: str | None = ColumnName
    expert: str | None = ColumnName
    format: FormatName = FORMAT

    @property
    def columns(self) -> Columns:
        """Columns that were named, with the defaults for the others."""
        return Columns(**self.model_dump(include={*Columns.model_fields}, exclude_none=True))


class HubDataset(HubSource):
    """A dataset of the Hugging Face hub. Workers download it; the service only stores the name."""

    name: Name = Field(description="Name in lists and results.")
    project: Slug = "default"


class DatasetChanges(StrictSettings):
    """Changes of a dataset."""

    name: Name = Field(description="New name in lists and results. The id stays.")


class Dataset(Record):
    """A dataset: an uploaded file, or the name of a dataset on the hub (`hub`), whose other fields are unknown."""

    id: UUID = Field(description="Id that a job refers to: `data: {dataset: <id>}`.")
    project: str
    user: str = Field(description="User who uploaded or registered the dataset.")
    name: str
    format: Literal["parquet", "jsonl"] | None
    sha256: str | None = Field(description="SHA-256 of the file, in hexadecimal digits.")
    bytes: int | None
    rows: int | None
    columns: Columns = Field(description="Column names, if the dataset has the plain format.")
    read_as: str = Field(AUTO, description="Row format that was chosen at the upload. auto: that of the columns.")
    has_columns: list[str] | None = Field(description="Names of all columns in the file.")
    has_experts: bool | None = Field(description="True: at least one row has an expert completion.")
    row_format: str | None = Field(None, description="Row format of the file.")
    unused_columns: list[str] | None = Field(None, description="Columns that have content and are not used.")
    hub: HubSource | None
    created_at: datetime


class PreviewRow(Record):
    """A row as a job reads it. Long texts are cut."""

    row: int = Field(description="Row number, counted from 1.")
    earlier: list[str] = Field(description="Messages before the question.")
    question: str
    answer: str
    expert: str | None
    data_source: str | None
    images: list[str] = Field(description="First images of the row, scaled down, as data URLs (PNG).")
    image_count: int


class ReportRequest(StrictSettings):
    """Options of the data report of a dataset."""

    rewards: tuple[Reward, ...] = Field(
        (MathReward(),),
        max_length=16,
        description="Rewards of the job. Those that compare an answer with the truth judge truths and experts.",
    )
    against: UUID | None = Field(None, description="Dataset with validation rows, to find rows that are in both.")
    format: FormatName | None = Field(
        None, max_length=40, description="Row format to read the file in. None: that of its upload."
    )
    model: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="Folder of a saved model that jobs can read. Its tokenizer.json counts the tokens of experts, and "
        "those of prompts without chat template and images. None: no tokens are counted.",
    )
    max_prompt_tokens: int | None = Field(None, ge=1, description="prompts.max_tokens of the job; needs model.")
    max_completion_tokens: int | None = Field(
        None, ge=1, description="rollout.max_completion_tokens of the job; needs model."
    )

    @model_validator(mode="after")
    def _limits_have_a_model(self) -> Self:
        if self.model is None and (self.max_prompt_tokens or self.max_completion_tokens):
            raise ValueError("limits of tokens need a model: name the folder of one")
        return self
