"""Stored responses to requests that clients can send again."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.models import IdempotencyKey

RETENTION = timedelta(hours=24)
_OLD = IdempotencyKey.created_at < func.now() - RETENTION


def try_lock(session: Session, numbers: tuple[int, int]) -> bool:
    """Lock a key (two 32-bit numbers) until the transaction ends. Return False if another transaction has it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(*numbers))))


def find(session: Session, caller: bytes, key: str) -> IdempotencyKey | None:
    """Return the stored response of a key, or None if there is none that is recent enough."""
    query = select(IdempotencyKey).where(IdempotencyKey.caller == caller, IdempotencyKey.key == key, ~_OLD)
    return session.scalar(query)


def store(
    session: Session,
    caller: bytes,
    key: str,
    *,
    request: bytes,
    status: int,
    location: str | None,
    media_type: str | None,
    body: bytes,
) -> None:
    """Store a response in the transaction of the change that it reports."""
    answer = {"request": request, "status": status, "location": location, "media_type": media_type, "body": body}
    statement = insert(IdempotencyKey).values(caller=caller, key=key, **answer)
    again = answer | {"created_at": func.clock_timestamp()}  # there can still be an expired response of this key
    session.execute(
        statement.on_conflict_do_update(index_elements=[IdempotencyKey.caller, IdempotencyKey.key], set_=again)
    )


def forget_old(session: Session) -> None:
    """Delete expired responses."""
    session.execute(delete(IdempotencyKey).where(_OLD))
