"""The slots that run jobs."""

from uuid import UUID

from sqlalchemy.orm import Session


def register(session: Session, name: str, host: str, device: str) -> None:
    """Note that a worker has started, idle."""
    raise NotImplementedError


def beat(session: Session, name: str, job_id: UUID | None) -> str:
    """Note that a worker lives and what it runs; its status: idle, busy, or stopping where it was told to.

    Raises:
        NotFound: no worker of this name is registered.
    """
    raise NotImplementedError


def mark_stopping(session: Session, name: str) -> None:
    """Note that a worker will take no further job; its job's next heartbeat says STOP."""
    raise NotImplementedError


def remove(session: Session, name: str) -> None:
    """Forget a worker that has ended in order."""
    raise NotImplementedError
