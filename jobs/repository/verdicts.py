"""Verdicts of people on stored completions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, undefer

from jobs.models import PersonVerdict, Sample

FEW = 20  # samples in which an unjudged completion is looked for


def put(session: Session, job_id: UUID, sample_id: int, completion: int, user: str, values: dict[str, Any]) -> None:
    """Store the verdict of a user. It replaces an earlier one. values: `right`, `passed` and `picked`."""
    key = {"sample_id": sample_id, "completion": completion, "user": user}
    statement = insert(PersonVerdict).values(job_id=job_id, **key, **values)
    changed = values | {"created_at": func.clock_timestamp()}
    session.execute(statement.on_conflict_do_update(index_elements=[*key], set_=changed))


def remove(session: Session, job_id: UUID, sample_id: int, completion: int, user: str) -> bool:
    """Remove the verdict of a user. Return False if there was none."""
    table = PersonVerdict
    key = (table.job_id == job_id, table.sample_id == sample_id, table.completion == completion, table.user == user)
    return session.scalar(delete(table).where(*key).returning(table.completion)) is not None


def of_job(
    session: Session,
    job_id: UUID,
    sample_id: int | None = None,
    *,
    before: datetime | None = None,
    limit: int | None = None,
) -> list[Row[Any]]:
    """Return the verdicts of a job, or of one sample, newest first, with the columns of the record `PersonVerdict`.
    `before`: only earlier ones."""
    table = PersonVerdict
    columns = (table.sample_id, table.completion, table.user, table.right, table.passed, table.picked, table.created_at)
    query = select(*columns, Sample.step, Sample.prompt_id).join(Sample, Sample.id == table.sample_id)
    query = query.where(table.job_id == job_id).order_by(table.created_at.desc(), table.sample_id, table.completion)
    if sample_id is not None:
        query = query.where(table.sample_id == sample_id)
    if before is not None:
        query = query.where(table.created_at < before)
    return list(session.execute(query.limit(limit)))


def stored(session: Session, job_id: UUID) -> tuple[int, int]:
    """Return the number of stored completions of a job, and of those that passed."""
    size, passed = (func.coalesce(func.sum(column), 0) for column in (Sample.size, Sample.passed))
    row = session.execute(select(size, passed).where(Sample.job_id == job_id)).one()
    return int(row[0]), int(row[1])


def random_samples(session: Session, job_id: UUID, *, passed: bool) -> list[Sample]:
    """Return a few samples in random order, with their contents; each as likely as it has completions that passed, or
    that failed."""
    weight = Sample.passed if passed else Sample.size - Sample.passed
    # The times until the first event of processes with these rates are in this order.
    time = -func.ln(1.0 - func.random()) / weight
    query = select(Sample).where(Sample.job_id == job_id, weight > 0).order_by(time).limit(FEW)
    return list(session.scalars(query.options(undefer(Sample.group))))
