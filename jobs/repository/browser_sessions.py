"""Sessions of browsers that are signed in to the dashboard."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.models import BrowserSession


def add(session: Session, key_id: UUID, *, sha256: bytes, hours: float) -> BrowserSession:
    """Store a new session of a key."""
    values = {"key_id": key_id, "sha256": sha256, "expires_at": func.now() + timedelta(hours=hours)}
    return session.scalars(insert(BrowserSession).values(values).returning(BrowserSession)).one()


def end(session: Session, id: UUID) -> None:
    """End a session."""
    session.execute(delete(BrowserSession).where(BrowserSession.id == id))


def remove_expired(session: Session) -> None:
    """Remove the sessions that have expired."""
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= func.now()))


def keep_newest(session: Session, key_id: UUID, count: int) -> None:
    """End all sessions of a key except for the newest `count`."""
    newest = select(BrowserSession.id).where(BrowserSession.key_id == key_id)
    newest = newest.order_by(BrowserSession.created_at.desc()).limit(count)
    session.execute(delete(BrowserSession).where(BrowserSession.key_id == key_id, BrowserSession.id.not_in(newest)))
