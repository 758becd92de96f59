"""Alert rules of projects."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt


class AlertRule(Base):
    """An alert rule. `condition`: an `AlertCondition`. Its alerts are events of jobs, which name it."""

    __tablename__ = "alert_rules"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project: Mapped[str] = mapped_column(ForeignKey("projects.slug", ondelete="CASCADE"))
    name: Mapped[str]
    condition: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    job_names: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[CreatedAt]
