"""Accuracy per prompt, from evaluations."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.models import Accuracies

Key = tuple[UUID, int, str]  # job, model, split


def put(session: Session, job_id: UUID, model_index: int, split: str, prompts: list[str], values: list[float]) -> None:
    """Store the accuracies of a model on a dataset. They replace those of an earlier attempt."""
    statement = insert(Accuracies).values(
        job_id=job_id, model_index=model_index, split=split, prompts=prompts, values=values
    )
    columns = {"prompts": statement.excluded.prompts, "values": statement.excluded["values"]}
    key = [Accuracies.job_id, Accuracies.model_index, Accuracies.split]
    session.execute(statement.on_conflict_do_update(index_elements=key, set_=columns))


def sizes(session: Session, job_ids: Collection[UUID]) -> dict[Key, int]:
    """Return the number of stored prompts by job, model and split."""
    query = select(
        Accuracies.job_id, Accuracies.model_index, Accuracies.split, func.cardinality(Accuracies.prompts)
    ).where(Accuracies.job_id.in_(job_ids))
    return {(job_id, index, split): count for job_id, index, split, count in session.execute(query)}


def load(session: Session, keys: Collection[Key]) -> dict[Key, Row[Any]]:
    """Return `prompts` and `values` by key."""
    table = Accuracies
    query = select(table.job_id, table.model_index, table.split, table.prompts, table.values)
    rows: list[Row[Any]] = list(
        session.execute(query.where(tuple_(table.job_id, table.model_index, table.split).in_(keys)))
    )
    return {(row.job_id, row.model_index, row.split): row for row in rows}
