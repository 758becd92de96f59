"""Projects: a name that jobs are grouped by."""

from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt


class Project(Base):
    __tablename__ = "projects"

    slug: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
