"""Audit log."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.models import AuditEntry


def add(
    session: Session, *, user: str, key_id: UUID | None, action: str, path: str, project: str | None, request_id: str
) -> None:
    """Record a change, in the transaction that makes it."""
    session.add(AuditEntry(user=user, key_id=key_id, action=action, path=path, project=project, request_id=request_id))


def page(session: Session, *, project: str | None, user: str | None, before: int, limit: int) -> list[AuditEntry]:
    """Return entries from new to old, starting before `before`."""
    query = select(AuditEntry).where(AuditEntry.id < before).order_by(AuditEntry.id.desc()).limit(limit)
    if project is not None:
        query = query.where(AuditEntry.project == project)
    if user is not None:
        query = query.where(AuditEntry.user == user)
    return list(session.scalars(query))
