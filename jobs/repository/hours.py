"""Time of the attempts of jobs by its use: sums over the metrics of their steps."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Double, Row, Subquery, and_, case, cast, column, exists, func, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, defer

from jobs.models import Attempt, Job, StepMetrics

MAX_SECONDS = 1e9  # a phase of a step that takes longer is no measurement
_READ = (
    *("perf/step_seconds", "perf/rollout_seconds", "perf/reward_seconds", "perf/image_seconds"),
    *("perf/validation_seconds", "length/mean", "length/truncated_share"),
    *("sampled/exploration/active_groups", "exploration/active_groups", "validation/accuracy"),
)


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
    each = func.jsonb_to_record(StepMetrics.values).table_valued(*(column(name, Double) for name in _READ))
    values = each.render_derived(name="each", with_types=True)
    longest = cast(Job.spec["rollout"]["max_completion_tokens"].astext, Double)
    read = {name: values.c[name] for name in _READ}
    idle = 1 - func.coalesce(read["sampled/exploration/active_groups"], read["exploration/active_groups"], 1.0)
    cut = func.coalesce(read["length/truncated_share"] * longest / func.nullif(read["length/mean"], 0.0), 0.0)
    rollouts = _finite(read["perf/rollout_seconds"])
    took = _finite(read["perf/step_seconds"]) + _finite(read["perf/validation_seconds"])
    accuracy = case((read["validation/accuracy"].between(0.0, 1.0), read["validation/accuracy"]))
    return (
        select(
            wanted.c.job_id,
            wanted.c.number,
            func.count().label("rows"),
            func.min(StepMetrics.ts - func.make_interval(0, 0, 0, 0, 0, 0, took)).label("begun"),
            func.max(StepMetrics.ts).label("last"),
            func.sum(_finite(read["perf/step_seconds"])).label("steps"),
            func.sum(rollouts * _share(idle)).label("idle"),
            func.sum(rollouts * (1 - _share(idle)) * _share(cut)).label("cut"),
            func.sum(_finite(read["perf/reward_seconds"]) + _finite(read["perf/image_seconds"])).label("waiting"),
            func.sum(_finite(read["perf/validation_seconds"])).label("validation"),
            func.array_agg(aggregate_order_by(accuracy, StepMetrics.step))
            .filter(accuracy.is_not(None))[1]
            .label("first"),
            func.max(accuracy).label("best"),
        )
        .select_from(wanted)
        .join(Job, Job.id == wanted.c.job_id)
        .join(
            StepMetrics,
            and_(StepMetrics.job_id == wanted.c.job_id, StepMetrics.ts.between(wanted.c.started_at, wanted.c.ended)),
        )
        .join(values, true())
        .group_by(wanted.c.job_id, wanted.c.number)
        .subquery()
    )


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.extract("epoch", interval), Double)


def _finite(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return 0 for a missing value and for NaN, which PostgreSQL sorts last."""
    return case((value.between(0.0, MAX_SECONDS), value), else_=0.0)


def _share(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((value.between(0.0, 1.0), value), (value > 1.0, 1.0), else_=0.0)
