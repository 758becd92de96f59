"""Images of samples, stored once per content for all jobs."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Image(Base):
    """Content of an image."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    png: Mapped[bytes]


class JobImage(Base):
    """Link of a job to an image. Without it, the API does not return the image under this job."""

    __tablename__ = "job_images"

    job_id: Mapped[JobKey]
    sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), primary_key=True, index=True)
