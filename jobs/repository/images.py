"""Images of samples, stored once per content."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.models import Image, JobImage


def put(session: Session, job_id: UUID, sha256: str, png: bytes) -> None:
    """Store an image and link it to the job."""
    statement = insert(Image).values(sha256=sha256, png=png)
    # Rewrite an existing row to take its lock: the janitor then waits and keeps the image.
    session.execute(statement.on_conflict_do_update(index_elements=[Image.sha256], set_={"sha256": sha256}))
    session.execute(insert(JobImage).values(job_id=job_id, sha256=sha256).on_conflict_do_nothing())


def exists(session: Session, job_id: UUID, sha256: str) -> bool:
    """Return True if the job already has this image."""
    return session.get(JobImage, (job_id, sha256)) is not None


def get(session: Session, job_id: UUID, sha256: str) -> bytes:
    """Return the PNG file of an image of the job.

    Raises:
        NotFound: the job has no image of this hash.
    """
    query = select(Image.png).join(JobImage).where(JobImage.job_id == job_id, Image.sha256 == sha256)
    png = session.scalar(query)
    if png is None:
        raise NotFound(f"Job {job_id} has no image {sha256}.")
    return png
