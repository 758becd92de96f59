"""What a live stream sends: each kind of frame has a record of its own."""

from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.jobs import Event, Job
from calibrl.schemas.runs import Checkpoint, Histogram, LogChunk, MetricRow, SampleSummary
from calibrl.schemas.status import JobStatus

T = TypeVar("T")


class Several(Record, Generic[T]):
    """Records of one job. Those that a client has already, by id or step, are replaced by these."""

    job_id: UUID
    data: list[T]


class Rewound(Record):
    """The job goes on from a checkpoint: metrics, histograms, samples and checkpoints past `to_step` are gone."""

    job_id: UUID
    to_step: int


class LogPiece(LogChunk):
    """The log from byte `start` to byte `next`; whatever a client has from `start` on is replaced by it."""

    job_id: UUID
    start: int


class Ended(Record):
    """The job has ended and everything has been sent."""

    job_id: UUID
    status: JobStatus


LIVE: dict[str, type[Record]] = {
    "status": Job,
    "rewound": Rewound,
    "events": Several[Event],
    "metrics": Several[MetricRow],
    "histograms": Several[Histogram],
    "samples": Several[SampleSummary],
    "checkpoints": Several[Checkpoint],
    "log": LogPiece,
    "end": Ended,
}


class Frame(Record):
    """One message of a stream. `data` is of the type that `LIVE` names for its `event`; an `event` of None only tells
    the id."""

    id: str = Field(description="where in the stream it stands: the Last-Event-ID that goes on behind it")
    event: str | None
    data: Any
