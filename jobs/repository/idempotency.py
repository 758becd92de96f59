"""Requests that clients may send again: the answers that they got."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.models import IdempotencyKey

KEPT = timedelta(hours=24)
_OLD = IdempotencyKey.created_at < func.now() - KEPT


def try_lock(session: Session, numbers: tuple[int, int]) -> bool:
    """Be the only one with a key until the transaction ends; False where somebody else is. `numbers`: 32 bits each."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(*numbers))))


def find(session: Session, caller: bytes, key: str) -> IdempotencyKey | None:
    """What was answered under a key; None where nothing was, or too long ago."""
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
    """Keep an answer, in the transaction of what it tells of."""
    answer = {"request": request, "status": status, "location": location, "media_type": media_type, "body": body}
    statement = insert(IdempotencyKey).values(caller=caller, key=key, **answer)
    again = answer | {"created_at": func.clock_timestamp()}  # one of this key may be there still, too old
    session.execute(
        statement.on_conflict_do_update(index_elements=[IdempotencyKey.caller, IdempotencyKey.key], set_=again)
    )


def forget_old(session: Session) -> None:
    """Remove answers that are kept no longer."""
    session.execute(delete(IdempotencyKey).where(_OLD))
