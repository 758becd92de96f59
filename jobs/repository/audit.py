"""Audit log."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import takewhile
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from calibrl.schemas import AuditFilter
from jobs.models import AuditEntry

FORGOTTEN_AT_ONCE = 200  # entries: the sweep calls every few seconds


def add(
    session: Session,
    *,
    user: str,
    key_id: UUID | None,
    action: str,
    path: str,
    project: str | None,
    request_id: str,
    object: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Record a change, in the transaction that makes it."""
    who = {"user": user, "key_id": key_id, "action": action, "path": path, "project": project}
    session.add(AuditEntry(**who, request_id=request_id, object=object, before=before, after=after))


def after(session: Session, id: int, *, project: str | None, limit: int, settled: timedelta) -> list[AuditEntry]:
    """Return entries from old to new, starting after an id, up to the first whose transaction began less than
    `settled` ago: transactions commit in any order, and one that still runs can have a smaller id."""
    query = select(AuditEntry).where(AuditEntry.id > id).order_by(AuditEntry.id).limit(limit)
    rows = session.scalars(query if project is None else query.where(AuditEntry.project == project))
    until = session.scalars(select(func.now() - settled)).one()
    return list(takewhile(lambda row: row.ts <= until, rows))


def forget_old(session: Session, days: int) -> None:
    """Delete some of the oldest entries, if they are older than `days`."""
    oldest = select(AuditEntry.id, AuditEntry.ts).order_by(AuditEntry.id).limit(FORGOTTEN_AT_ONCE).subquery()
    old = select(oldest.c.id).where(oldest.c.ts < func.now() - timedelta(days=days))
    session.execute(delete(AuditEntry).where(AuditEntry.id.in_(old)))


def page(session: Session, filters: AuditFilter) -> list[AuditEntry]:
    """Return the entries that match a filter from new to old, plus one if there are more."""
    query = select(AuditEntry).where(AuditEntry.id < filters.before).order_by(AuditEntry.id.desc())
    if filters.project is not None:
        query = query.where(AuditEntry.project == filters.project)
    if filters.user is not None:
        query = query.where(AuditEntry.user == filters.user)
    if filters.action is not None:
        query = query.where(AuditEntry.action.icontains(filters.action, autoescape=True))
    if filters.created_after is not None:
        query = query.where(AuditEntry.ts >= filters.created_after)
    if filters.created_before is not None:
        query = query.where(AuditEntry.ts < filters.created_before)
    return list(session.scalars(query.limit(filters.limit + 1)))
