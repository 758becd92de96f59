"""Records in the frames of a live stream, one type per event."""

from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.checkpoints import Checkpoint
from calibrl.schemas.events import Event
from calibrl.schemas.histograms import Histogram
from calibrl.schemas.jobs import Job
from calibrl.schemas.logs import LogChunk
from calibrl.schemas.metrics import MetricRow
from calibrl.schemas.samples import SampleSummary
from calibrl.schemas.status import JobStatus

T = TypeVar("T")


class RecordBatch(Record, Generic[T]):
    """Records of one job. They replace records with the same id or step that the client has already."""

    job_id: UUID
    data: list[T]


class Rewound(Record):
    """The job continues from a checkpoint: metrics, histograms, samples and checkpoints after `to_step` are deleted."""

    job_id: UUID
    to_step: int


class LogPiece(LogChunk):
    """The log from byte `start` to byte `next`. It replaces everything from `start` on that the client has."""

    job_id: UUID
    start: int


class Ended(Record):
    """The job has ended, and all records have been sent."""

    job_id: UUID
    status: JobStatus


LIVE: dict[str, type[Record]] = {
    "status": Job,
    "rewound": Rewound,
    "events": RecordBatch[Event],
    "metrics": RecordBatch[MetricRow],
    "histograms": RecordBatch[Histogram],
    "samples": RecordBatch[SampleSummary],
    "checkpoints": RecordBatch[Checkpoint],
    "log": LogPiece,
    "end": Ended,
}


class Frame(Record):
    """One message of a stream. `LIVE` names the type of `data` per `event`. If `event` is None, the frame only
    carries the id."""

    id: str = Field(description="Position in the stream. Send it as Last-Event-ID to continue after this frame.")
    event: str | None
    data: Any
