"""Time of the attempts of jobs by its use: sums over the metrics of their steps, from blocks where a block is of one
attempt."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    Row,
    Subquery,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    literal,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, defer

from jobs.models import Attempt, Job, MetricBlock, StepMetrics
from jobs.repository.curves import BLOCK

MAX_SECONDS = 1e9  # a phase of a step that takes longer is no measurement
_READ = (
    *("perf/step_seconds", "perf/rollout_seconds", "perf/reward_seconds", "perf/image_seconds"),
    *("perf/validation_seconds", "length/mean", "length/truncated_share"),
    *("sampled/exploration/active_groups", "exploration/active_groups", "validation/accuracy"),
)
_SHARES = (
    *("length/mean", "length/truncated_share", "exploration/active_groups", "sampled/exploration/active_groups"),
    "validation/accuracy",
)  # their mean counts; of the others the sum


def of_job(session: Session, job_id: UUID) -> list[Row[Any]]:
    """Return the attempts of a job in order.

    Columns: the `Job` without spec, result and notes; `held`, the seconds of all its attempts; `measured`, if it has
    metrics; of the attempt `number` and `seconds` (running: up to now); `rows`, the number of its steps with metrics,
    and, None without any: seconds `before` the first of these steps and `after` the last one; seconds of
    `steps`, `rollouts` without advantage (`idle`) and with truncated completions (`cut`), `waiting` and `validation`;
    `first` and `best` validation accuracy.
    """
    return list(session.execute(_attempts(Attempt.job_id == job_id)))


def of_project(session: Session, project: str, days: int) -> list[Row[Any]]:
    """Return the attempts of a project that began in the last days, by job, with the columns of `of_job`."""
    return list(
        session.execute(_attempts(Job.project == project, Attempt.started_at > func.now() - timedelta(days=days)))
    )


def _attempts(*of: ColumnElement[bool]) -> Any:
    wanted = (
        select(
            Attempt.job_id,
            Attempt.number,
            Attempt.started_at,
            func.coalesce(Attempt.finished_at, func.now()).label("ended"),
            cast(Job.spec["rollout"]["max_completion_tokens"].astext, Double).label("longest"),
        )
        .join(Job, Job.id == Attempt.job_id)
        .where(*of)
        .subquery()
    )
    sums = _sums(wanted)
    each = _seconds(func.coalesce(Attempt.finished_at, func.now()) - Attempt.started_at)
    held = select(func.sum(each)).where(Attempt.job_id == Job.id).scalar_subquery()
    query = (
        select(
            Job,
            held.label("held"),
            exists().where(StepMetrics.job_id == Job.id).label("measured"),
            wanted.c.number,
            _seconds(wanted.c.ended - wanted.c.started_at).label("seconds"),
            func.coalesce(sums.c.rows, 0).label("rows"),
            _seconds(sums.c.begun - wanted.c.started_at).label("before"),
            _seconds(wanted.c.ended - sums.c.last).label("after"),
            *(sums.c[name] for name in ("steps", "idle", "cut", "waiting", "validation", "first", "best")),
        )
        .join(Job, Job.id == wanted.c.job_id)
        .outerjoin(sums, and_(sums.c.job_id == wanted.c.job_id, sums.c.number == wanted.c.number))
    )
    query = query.options(defer(Job.spec), defer(Job.result), defer(Job.notes))
    return query.order_by(wanted.c.job_id, wanted.c.number)


def _sums(wanted: Subquery) -> Subquery:
    """Return the sums over the steps of each attempt. A step belongs to the attempt in whose time it was reported."""
    points = _points(wanted)
    read = {name: points.c[name] for name in _READ}
    idle = 1 - func.coalesce(read["sampled/exploration/active_groups"], read["exploration/active_groups"], 1.0)
    longest = points.c.longest
    cut = func.coalesce(read["length/truncated_share"] * longest / func.nullif(read["length/mean"], 0.0), 0.0)
    rollouts = _finite(read["perf/rollout_seconds"])
    took = _finite(read["perf/step_seconds"]) + _finite(read["perf/validation_seconds"])
    accuracy = _accuracy(read["validation/accuracy"])
    return (
        select(
            points.c.job_id,
            points.c.number,
            func.sum(points.c.count).label("rows"),
            func.min(points.c.ts - func.make_interval(0, 0, 0, 0, 0, 0, took)).label("begun"),
            func.max(points.c.ts).label("last"),
            func.sum(_finite(read["perf/step_seconds"])).label("steps"),
            func.sum(rollouts * _share(idle)).label("idle"),
            func.sum(rollouts * (1 - _share(idle)) * _share(cut)).label("cut"),
            func.sum(_finite(read["perf/reward_seconds"]) + _finite(read["perf/image_seconds"])).label("waiting"),
            func.sum(_finite(read["perf/validation_seconds"])).label("validation"),
            func.array_agg(aggregate_order_by(accuracy, points.c.step)).filter(accuracy.is_not(None))[1].label("first"),
            func.max(_accuracy(points.c.best)).label("best"),
        )
        .group_by(points.c.job_id, points.c.number)
        .subquery()
    )


def _points(wanted: Subquery) -> Subquery:
    """Return the metrics of each attempt: of whole blocks their sums of seconds and means of shares, of other steps the
    values. The columns are those of `_READ`, `longest`, `best` (validation accuracy), `count` (steps), `step`, `ts`.

    Only the first and the last block of an attempt are read step by step, because the jsonb of every step of a long job
    takes seconds.
    """
    blocks = _whole_blocks(wanted)
    first, last = func.min(blocks.c.start).label("first"), (func.max(blocks.c.start) + BLOCK - 1).label("last")
    known = select(blocks.c.job_id, blocks.c.number, first, last).group_by(blocks.c.job_id, blocks.c.number).subquery()
    own = (StepMetrics.job_id == wanted.c.job_id) & StepMetrics.ts.between(wanted.c.started_at, wanted.c.ended)
    outside = known.c.first.is_(None) | (StepMetrics.step < known.c.first) | (StepMetrics.step > known.c.last)
    rows = (
        select(wanted.c.job_id, wanted.c.number, wanted.c.longest, StepMetrics.step, StepMetrics.ts, StepMetrics.values)
        .outerjoin(known, (known.c.job_id == wanted.c.job_id) & (known.c.number == wanted.c.number))
        .join(StepMetrics, own & outside)
        .offset(0)  # the jsonb of a step that is in a block is not read
        .subquery()
    )
    each = func.jsonb_to_record(rows.c["values"]).table_valued(*(column(name, Double) for name in _READ))
    values = each.render_derived(name="each", with_types=True)
    key = ("job_id", "number", "longest", "step", "ts")
    single = select(
        *(rows.c[name] for name in key),
        literal(1).label("count"),
        *(values.c[name] for name in _READ),
        values.c["validation/accuracy"].label("best"),
    ).join(values, true())
    of_blocks = select(
        *(blocks.c["start" if name == "step" else name] for name in key),
        *(blocks.c[name] for name in ("count", *_READ, "best")),
    )
    return union_all(single, of_blocks).subquery()


def _whole_blocks(wanted: Subquery) -> CTE:
    """Return the blocks all of whose steps are of one attempt: the block before ended in its time too."""
    block = MetricBlock

    def of(name: str, column: str = "sum") -> ColumnElement[Any]:
        return func.sum(getattr(block, column)).filter(block.name == name)

    mean = {name: of(name) / func.nullif(of(name, "count"), 0) for name in _READ if name in _SHARES}
    seconds = {name: of(name) for name in _READ if name not in _SHARES}
    known = mean | seconds | {"validation/accuracy": of("validation/accuracy", "last")}
    ts = func.max(block.ts)
    jobs = select(wanted.c.job_id).distinct()
    pivot = (
        select(
            block.job_id,
            block.start,
            ts.label("ts"),
            func.lag(ts).over(partition_by=block.job_id, order_by=block.start).label("before"),
            func.max(block.count).label("count"),
            *(known[name].label(name) for name in _READ),
            of("validation/accuracy", "max").label("best"),
        )
        .where(block.job_id.in_(jobs), block.name.in_(_READ))
        .group_by(block.job_id, block.start)
        .subquery()
    )
    inside = pivot.c.ts.between(wanted.c.started_at, wanted.c.ended) & (pivot.c.before >= wanted.c.started_at)
    columns = [column for column in pivot.c if column.name not in ("job_id", "before")]
    query = select(wanted.c.job_id, wanted.c.number, wanted.c.longest, *columns)
    return query.join(pivot, (pivot.c.job_id == wanted.c.job_id) & inside).cte("whole_blocks")


def _accuracy(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((value.between(0.0, 1.0), value))


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.extract("epoch", interval), Double)


def _finite(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return 0 for a missing value and for NaN, which PostgreSQL sorts last."""
    return case((value.between(0.0, MAX_SECONDS), value), else_=0.0)


def _share(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((value.between(0.0, 1.0), value), (value > 1.0, 1.0), else_=0.0)
