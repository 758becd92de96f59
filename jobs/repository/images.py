"""Images of samples, stored once by content."""

from uuid import UUID

from sqlalchemy.orm import Session


def put(session: Session, job_id: UUID, sha256: str, png: bytes) -> None:
    """Keep an image, and that the job shows it."""
    raise NotImplementedError


def exists(session: Session, job_id: UUID, sha256: str) -> bool:
    """Whether the job already shows this image."""
    raise NotImplementedError
