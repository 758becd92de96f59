"""Curves with a limited number of points: each metric in buckets of steps, from blocks and from rows.

A bucket has `width` steps, a power of two, and begins at a multiple of it, independent of the requested range. A block
summarises 32 steps. It is written once a later step exists. With 100,000 steps and 60 metrics, one metric takes some
hundredths of a second from blocks, and 1.7 s from rows.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    JSON,
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Row,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert, array, insert
from sqlalchemy.orm import Session

from jobs.models import MetricBlock, StepMetrics

BLOCK = 32  # steps; a migration has written blocks of this size
MAX_FINITE = 1e295  # larger numbers count as not finite, so that no sum overflows
MIN_SUM = 1e-290  # the mean of values with a smaller sum is 0
_MEASURES = ("count", "non_finite", "min", "max", "sum", "last")
_KEY = (MetricBlock.job_id, MetricBlock.name, MetricBlock.start)
_JOB, _NAMES = bindparam("of_job", type_=Uuid()), cast(bindparam("names", type_=ARRAY(Text)), ARRAY(Text))
_MASK, _FIRST, _LAST, _TAIL, _RAGGED = (
    bindparam(name, type_=Integer()) for name in ("mask", "first", "last", "tail", "ragged")
)


def last_step(session: Session, job_id: UUID) -> int | None:
    """Return the highest step of the metrics of a job, or None."""
    return session.scalar(select(func.max(StepMetrics.step)).where(StepMetrics.job_id == job_id))


def summarise(session: Session, job_id: UUID, steps: Collection[int], last_before: int | None) -> None:
    """Write the blocks of the steps that were just written, and the block of the last step before, if it is full
    now."""
    newest = max([*steps, -1 if last_before is None else last_before]) & -BLOCK
    touched = {step & -BLOCK for step in steps} | (set() if last_before is None else {last_before & -BLOCK})
    full = sorted(touched - {newest})
    if not full:
        return
    for start in full:
        session.execute(_block_made(), {"of_job": job_id, "from_step": start})


@cache
def _block_made() -> Insert:
    """Build the statement that writes the block of job `:of_job` that begins at `:from_step`, once, because it runs
    often."""
    job_id, start = bindparam("of_job", type_=Uuid()), bindparam("from_step", type_=Integer())
    points = _points(job_id, StepMetrics.step.between(start, start + (BLOCK - 1)))
    block = _measured(points, points.c.step.bitwise_and(-BLOCK).label("start"))
    columns = [*(column.name for column in _KEY), "first_step", "last_step", "ts", *_MEASURES]
    table = MetricBlock.metadata.tables[MetricBlock.__tablename__]  # the class would treat the parameters as a row
    statement = insert(table).from_select(columns, block)
    changed = {name: statement.excluded[name] for name in columns[len(_KEY) :]}
    return statement.on_conflict_do_update(index_elements=_KEY, set_=changed)


def buckets(
    session: Session, job_id: UUID, names: Sequence[str], *, newest: int | None, width: int, first: int, last: int
) -> list[Row[Any]]:
    """Return the buckets with a value of these metrics, from the bucket of step `first` to that of `last`. `newest`:
    last step of the job.

    Ordered by name and start. Columns: job_id, name, start, first_step, last_step, ts, count, non_finite, min, max,
    mean, last.
    """
    return list(session.execute(_buckets(width), _asked(job_id, names, newest, width, first, last)))


def buckets_json(
    session: Session, job_id: UUID, names: Sequence[str], *, newest: int | None, width: int, first: int, last: int
) -> list[str]:
    """Return the buckets as JSON, one object per metric with one list per column. PostgreSQL writes in 2 ms what
    Python takes 20 ms to read, check and write again."""
    return list(session.scalars(_json_of(width), _asked(job_id, names, newest, width, first, last)))


def _asked(
    job_id: UUID, names: Sequence[str], newest: int | None, width: int, first: int, last: int
) -> dict[str, object]:
    """Return the parameters of `_buckets`. `ragged`: start of the first bucket that contains rows."""
    tail = _tail(newest)
    asked = {"of_job": job_id, "names": list(names), "mask": -width, "tail": tail, "ragged": tail & -width}
    return asked | {"first": first & -width, "last": (last & -width) + width - 1}


def _buckets(width: int) -> Select[Any]:
    return _of_rows() if width < BLOCK else _of_blocks()


@cache
def _of_rows() -> Select[Any]:
    """Build the query for buckets narrower than a block."""
    parts = _from_rows(_FIRST).subquery()
    return _joined(parts).order_by(parts.c.name, parts.c.start)


@cache
def _of_blocks() -> Select[Any]:
    """Build the query for buckets of blocks. The last bucket can contain blocks and rows."""
    whole = _from_blocks(_FIRST, func.least(_LAST, _RAGGED - 1)).subquery()
    rows = _from_rows(func.greatest(_FIRST, _TAIL))
    last = union_all(_from_blocks(func.greatest(_FIRST, _RAGGED), func.least(_LAST, _TAIL - 1)), rows).subquery()
    both = union_all(_joined(whole), _joined(last)).subquery()
    return select(both).order_by(both.c.name, both.c.start)


@cache
def _json_of(width: int) -> Select[str]:
    buckets = _buckets(width).subquery()  # its order is the order of the lists
    lists: list[ColumnElement[Any]] = []
    for each in list(buckets.c)[2:]:
        values: ColumnElement[Any] = func.json_agg(each)
        if each.name == "ts":  # UTC is written as Z, as in all other responses
            values = cast(func.replace(cast(values, Text), '+00:00"', 'Z"'), JSON)
        lists += [literal_column(f"'{each.name}'"), values]
    series = func.json_build_object("job_id", buckets.c.job_id, "name", buckets.c.name, *lists)
    return select(cast(series, Text)).group_by(buckets.c.job_id, buckets.c.name).order_by(buckets.c.name)


def names(session: Session, job_id: UUID) -> list[Row[Any]]:
    """Return the metrics of a job by name: `name`, `last_step` with a value, and the `last` finite value (None:
    there is none)."""
    tail = _tail(last_step(session, job_id))
    known = _names_of_blocks(job_id)
    block = (
        select(MetricBlock.last_step, MetricBlock.last)
        .where(MetricBlock.job_id == job_id, MetricBlock.name == known.c.name, MetricBlock.start < tail)
        .order_by(MetricBlock.start.desc())
        .limit(1)
        .lateral()
    )
    blocks = select(known.c.name, block.c.last_step, block.c.last).select_from(known.join(block, true()))
    points = _points(job_id, StepMetrics.step >= tail)
    rows = select(points.c.name, func.max(points.c.step), _last(points.c.step, points.c.value)).group_by(points.c.name)
    parts = union_all(blocks, rows).subquery()
    last = _last(parts.c.last_step, parts.c.last).label("last")
    query = select(parts.c.name, func.max(parts.c.last_step).label("last_step"), last)
    return list(session.execute(query.group_by(parts.c.name).order_by(parts.c.name)))


def _tail(newest: int | None) -> int:
    """Return the step from which a job is read from rows. A query that computes it by itself would read the whole
    table."""
    return 0 if newest is None else newest & -BLOCK


def _names_of_blocks(job_id: UUID) -> CTE:
    """Return each `name` with blocks by skip scan over the key, because there are many blocks per name."""
    of_job = select(MetricBlock.name).where(MetricBlock.job_id == job_id).order_by(MetricBlock.name).limit(1)
    known = of_job.cte("known", recursive=True)
    following = of_job.where(MetricBlock.name > known.c.name).lateral()
    return known.union_all(select(following.c.name).select_from(known.join(following, true())))


def _points(job_id: UUID | ColumnElement[UUID], within: ColumnElement[bool]) -> FromClause:
    """Return each value of these steps: `job_id`, `step`, `ts`, `name`, `value`."""
    each = func.jsonb_each_text(StepMetrics.values).table_valued(column("key", Text), column("value", Text))
    pairs = select(
        StepMetrics.job_id, StepMetrics.step, StepMetrics.ts, each.c.key.label("name"), _number(each.c.value)
    )
    return _once(pairs.join(each, true()).where(StepMetrics.job_id == job_id, within))


def _from_blocks(first: ColumnElement[int], last: ColumnElement[int]) -> Select[Any]:
    block = MetricBlock
    measures = [getattr(block, name) for name in _MEASURES]
    start = block.start.bitwise_and(_MASK).label("start")
    query = select(block.job_id, block.name, start, block.first_step, block.last_step, block.ts, *measures)
    return query.where(block.job_id == _JOB, block.name == any_(_NAMES), block.start.between(first, last))


def _from_rows(first: ColumnElement[int]) -> Select[Any]:
    # `#> '{}'` is the whole value, unpacked once; otherwise PostgreSQL would unpack it again for each name.
    whole = StepMetrics.values.op("#>", return_type=JSONB())(cast([], ARRAY(Text))).label("values")
    query = select(StepMetrics.job_id, StepMetrics.step, StepMetrics.ts, whole)
    query = query.where(StepMetrics.job_id == _JOB, StepMetrics.step.between(first, _LAST))
    rows = _once(query)
    requested = func.unnest(_NAMES).table_valued(column("name", Text)).render_derived()
    value = _number(rows.c["values"].op("->>", return_type=Text())(requested.c.name))
    pairs = select(rows.c.job_id, rows.c.step, rows.c.ts, requested.c.name, value).join(requested, true())
    points = _once(pairs)
    return _measured(points, points.c.step.bitwise_and(_MASK).label("start"))


def _number(value: ColumnElement[str]) -> ColumnElement[float]:
    return cast(value, Double).label("value")  # from text, because `NaN` and `Infinity` are strings in JSON


def _once(query: Select[*tuple[Any, ...]]) -> FromClause:
    """Return a subquery whose expressions are computed once per row, however often its columns are used."""
    return query.offset(0).subquery()


def _last(step: ColumnElement[int], value: ColumnElement[float]) -> ColumnElement[float]:
    """Return the value of the highest step with a finite value."""
    pair = func.max(array([cast(step, Double), value]), type_=ARRAY(Double))
    return pair.filter(func.abs(value) < MAX_FINITE)[2]


def _measured(points: FromClause, start: ColumnElement[int]) -> Select[Any]:
    """Aggregate values of single steps (`job_id`, `name`, `step`, `ts`, `value`) by job, name and start."""
    value, step = points.c.value, points.c.step
    finite = func.abs(value) < MAX_FINITE  # false for NaN, which PostgreSQL sorts last
    count = func.count().filter(finite)
    key = (points.c.job_id, points.c.name, start)
    query = select(
        *key,
        func.min(step).label("first_step"),
        func.max(step).label("last_step"),
        func.max(points.c.ts).label("ts"),
        count.label("count"),
        (func.count() - count).label("non_finite"),
        func.min(value).filter(finite).label("min"),
        func.max(value).filter(finite).label("max"),
        func.sum(value).filter(finite).label("sum"),
        _last(step, value).label("last"),
    )
    return query.where(value.is_not(None)).group_by(*key)


def _joined(parts: FromClause) -> Select[Any]:
    """Merge parts of buckets."""
    c = parts.c
    count, total = cast(func.sum(c.count), BigInteger), func.sum(c.sum)
    # PostgreSQL refuses a division whose result is too small for a number.
    mean = case((func.abs(total) < MIN_SUM, 0.0), else_=total / func.nullif(count, 0))
    return select(
        c.job_id,
        c.name,
        c.start,
        func.min(c.first_step).label("first_step"),
        func.max(c.last_step).label("last_step"),
        func.max(c.ts).label("ts"),
        count.label("count"),
        cast(func.sum(c.non_finite), BigInteger).label("non_finite"),
        func.min(c.min).label("min"),
        func.max(c.max).label("max"),
        mean.label("mean"),
        _last(c.last_step, c.last).label("last"),
    ).group_by(c.job_id, c.name, c.start)
