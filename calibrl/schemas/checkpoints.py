"""Checkpoints of a job, and files to download."""

from datetime import datetime

from pydantic import Field

from calibrl.schemas.base import Record


class Checkpoint(Record):
    """A checkpoint that a job has written and still keeps."""

    step: int
    path: str
    best: bool
    metrics: dict[str, float | str]
    created_at: datetime


class StoredFile(Record):
    """A file to download. The content only changes if `etag` changes."""

    name: str = Field(description="Path within the checkpoint, such as adapter/adapter_config.json.")
    bytes: int
    etag: str


class CheckpointFiles(Checkpoint):
    """A checkpoint and its files, by name."""

    files: list[StoredFile]
