"""Runs of studies that another service made."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.models import RecordedRun


def put(session: Session, project: str, digest: str, run: dict[str, Any]) -> None:
    """Store a run by the digest of its evaluation. It replaces one of the project with the same settings."""
    statement = insert(RecordedRun).values(project=project, digest=digest, run=run)
    session.execute(statement.on_conflict_do_update(index_elements=["project", "digest"], set_={"run": run}))


def load(session: Session, project: str, digests: Collection[str]) -> list[dict[str, Any]]:
    """Return the runs of a project whose evaluations have these digests."""
    query = select(RecordedRun.run).where(RecordedRun.project == project, RecordedRun.digest.in_(digests))
    return list(session.scalars(query.order_by(RecordedRun.digest)))
