"""Jobs: reading, locking, listing, and how far a run has come."""

from uuid import UUID

from sqlalchemy.orm import Session


def shipped_offsets(session: Session, job_id: UUID) -> tuple[int, int]:
    """Bytes of the event file and of the log that are in the database already."""
    raise NotImplementedError


def set_shipped(session: Session, job_id: UUID, events_offset: int, log_offset: int) -> None:
    """Note how far the event file and the log have been shipped, in bytes; in the transaction that ships them."""
    raise NotImplementedError


def set_progress(session: Session, job_id: UUID, step: int, steps_total: int | None) -> None:
    """Note the steps done and, where it is known, planned."""
    raise NotImplementedError


def rewind(session: Session, job_id: UUID, to_step: int) -> None:
    """Forget metrics, histograms, samples and checkpoints past a step: a resumed run makes them again."""
    raise NotImplementedError
