"""The feed: changes of each job, recorded by the transaction that makes them, and read in commit order.

Code that writes data of a job records it: `feed.changes(session, job_id).steps.add(7)`, or only `feed.changes(session,
job_id)` if nothing but the row of the job changed. At the end of the session `write` turns the record into one row and
one notification.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.dml import ReturningInsert

from jobs.models import Event, Feed, Histogram, Job, Sample, StepMetrics

CHANNEL = "calibrl"
MAX_PART_LENGTH = 100  # maximum steps or ids per part
MAX_LOG_PART_BYTES = 65_536  # bytes
_CHANGES = "changes"

Part = list[Any]  # kind, then its range
Range = tuple[int, int]  # first and last, both included


@dataclass
class Changes:
    """Changes of one job in a session."""

    rewound: int | None = None
    events: list[Event] = field(default_factory=list)
    steps: set[int] = field(default_factory=set)
    histograms: dict[str, set[int]] = field(default_factory=dict)
    samples: set[int] = field(default_factory=set)
    checkpoints: bool = False
    log: Range | None = None
    forgotten: bool = False

    def rewind(self, to_step: int) -> None:
        """Record that all steps after this one are deleted."""
        self.rewound = to_step if self.rewound is None else min(self.rewound, to_step)

    def extend_log(self, start: int, end: int) -> None:
        """Record new bytes of the log."""
        self.log = (min(start, self.log[0]) if self.log else start, end)

    def parts(self) -> list[Part]:
        """Return the parts of the row of this session. A rewind comes first, even if it happened last: readers load
        the content later, and find only what still exists."""
        ids = [event.id for event in self.events]
        events = [(0, max(ids, default=0))] if self.forgotten else _pieces(ids)
        parts: list[Part] = [] if self.rewound is None else [["rewound", self.rewound]]
        parts += [["events", *ends] for ends in events]
        parts += [["metrics", *ends] for ends in _pieces(self.steps)]
        steps = {step for each in self.histograms.values() for step in each}
        parts += [["histograms", *ends, sorted(self.histograms)] for ends in _pieces(steps)]
        parts += [["samples", *ends] for ends in _pieces(self.samples)]
        parts += [["checkpoints"]] if self.checkpoints else []
        return parts + [["log", *ends] for ends in _log_pieces(self.log)]


def changes(session: Session, job_id: UUID) -> Changes:
    """Return the record of a job's changes in this session, to add to."""
    collected: dict[UUID, Changes] = session.info.setdefault(_CHANGES, {})
    return collected.setdefault(job_id, Changes())


def write(session: Session) -> None:
    """Write the changes of the session to the feed and send the notification. Must be last before the commit: it
    locks the rows of the jobs, so that cursors are in commit order."""
    collected: dict[UUID, Changes] = session.info.pop(_CHANGES, {})
    if not collected:
        return
    session.flush()
    parts = {str(job_id): each.parts() for job_id, each in collected.items()}
    session.connection().execute(_written(), {"given": parts}).all()


@cache
def _written() -> ReturningInsert[Any]:
    """Build the statement that writes `:given`, the changes by job, once, because every change ends with it."""
    named = func.jsonb_each(bindparam("given", type_=JSONB())).table_valued("key", column("value", JSONB), name="named")
    bumped = (
        update(Job)
        .where(Job.id == cast(named.c.key, Uuid))
        .values(feed=Job.feed + 1)
        .returning(Job.id, Job.feed, named.c.value)
        .cte("bumped")
    )
    table = Feed.metadata.tables[Feed.__tablename__]
    rows = insert(table).from_select(["job_id", "cursor", "parts"], select(bumped.c.id, bumped.c.feed, bumped.c.value))
    return rows.returning(func.pg_notify(CHANNEL, cast(table.c.job_id, Text)))


def forget(session: Session, job_id: UUID) -> None:
    """Delete the feed of a locked job except for its events. The changes of this session replace it."""
    session.execute(delete(Feed).where(Feed.job_id == job_id))
    collected = changes(session, job_id)
    collected.rewind(-1)
    collected.log, collected.checkpoints, collected.forgotten = (0, 0), True, True


def of_job(session: Session, job_id: UUID, *, first: int, last: int, limit: int) -> list[Feed]:
    """Return the rows of a job between two cursors, both included."""
    query = select(Feed).where(Feed.job_id == job_id, Feed.cursor.between(first, last))
    return list(session.scalars(query.order_by(Feed.cursor).limit(limit)))


def of_all(session: Session, *, first: Range, limit: int) -> list[Row[Any]]:
    """Return the rows of all jobs from (xid, id) on, with `project`, up to the first row that a running transaction
    could still precede."""
    query = select(Feed.xid, Feed.id, Feed.job_id, Feed.parts, Job.project).join(Job, Job.id == Feed.job_id)
    query = query.where(tuple_(Feed.xid, Feed.id) >= tuple_(*first), Feed.xid < _oldest_running())
    return list(session.execute(query.order_by(Feed.xid, Feed.id).limit(limit)))


def newest(session: Session) -> Range:
    """Return (xid, id) of the last row of all jobs before which no running transaction can still add one."""
    query = select(Feed.xid, Feed.id).where(Feed.xid < _oldest_running())
    row = session.execute(query.order_by(Feed.xid.desc(), Feed.id.desc()).limit(1)).first()
    return (row.xid, row.id) if row else (0, 0)


def are_held(session: Session) -> bool:
    """Return True if a running transaction holds back rows."""
    return bool(session.scalar(select(exists().where(Feed.xid >= _oldest_running()))))


def events(session: Session, ranges: Mapping[UUID, Collection[Range]]) -> list[Event]:
    """Return events of jobs by ranges of ids, in order."""
    conditions = [and_(Event.job_id == job_id, _within(Event.id, of)) for job_id, of in ranges.items() if of]
    return list(session.scalars(select(Event).where(or_(*conditions)).order_by(Event.id))) if conditions else []


def metrics(session: Session, job_id: UUID, ranges: Collection[Range]) -> list[StepMetrics]:
    """Return metrics by ranges of steps."""
    query = (
        select(StepMetrics)
        .where(StepMetrics.job_id == job_id, _within(StepMetrics.step, ranges))
        .order_by(StepMetrics.step)
    )
    return list(session.scalars(query)) if ranges else []


def histograms(session: Session, job_id: UUID, names: Collection[str], ranges: Collection[Range]) -> list[Histogram]:
    """Return histograms of these names by ranges of steps."""
    query = select(Histogram).where(Histogram.job_id == job_id, Histogram.name.in_(names))
    query = query.where(_within(Histogram.step, ranges)).order_by(Histogram.step, Histogram.name)
    return list(session.scalars(query)) if ranges else []


def samples(session: Session, job_id: UUID, ranges: Collection[Range]) -> list[Sample]:
    """Return samples by ranges of ids, without their contents."""
    query = select(Sample).where(Sample.job_id == job_id, _within(Sample.id, ranges)).order_by(Sample.id)
    return list(session.scalars(query)) if ranges else []


def _oldest_running() -> ColumnElement[int]:
    return cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)


def _within(number: InstrumentedAttribute[int], ranges: Collection[Range]) -> ColumnElement[bool]:
    return or_(*(number.between(*ends) for ends in _merged(ranges)))


def _merged(ranges: Collection[Range]) -> list[Range]:
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _pieces(numbers: Collection[int]) -> list[Range]:
    """Split numbers into ranges of at most `PIECE` each."""
    pieces: list[Range] = []
    for number in sorted(numbers):
        if pieces and number < pieces[-1][0] + MAX_PART_LENGTH:
            pieces[-1] = (pieces[-1][0], number)
        else:
            pieces.append((number, number))
    return pieces


def _log_pieces(log: Range | None) -> Iterator[Range]:
    if log is not None and log[0] == log[1]:
        yield log
    elif log is not None:
        yield from ((start, min(start + MAX_LOG_PART_BYTES, log[1])) for start in range(*log, MAX_LOG_PART_BYTES))
