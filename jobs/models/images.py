"""Images of samples: stored once by content, whichever jobs show them."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Image(Base):
    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    png: Mapped[bytes]


class JobImage(Base):
    """That a job shows an image: without it, the job's address does not give the image out."""

    __tablename__ = "job_images"

    job_id: Mapped[JobKey]
    sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), primary_key=True, index=True)
