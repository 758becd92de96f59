"""Projects and their limits."""

from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt, Timestamp


class Project(Base):
    """Project with its limits; None: no limit. A slot is a GPU or a CPU slot. `retention_from`: time before which the
    retention removes nothing; None: none."""

    __tablename__ = "projects"

    slug: Mapped[str] = mapped_column(primary_key=True)
    weight: Mapped[float] = mapped_column(default=1.0, server_default="1")
    max_gpus: Mapped[int | None]
    max_queued: Mapped[int | None]
    max_priority: Mapped[str | None]
    max_run_hours: Mapped[float | None]
    budget_slot_hours: Mapped[float | None]
    user_budget_slot_hours: Mapped[float | None]
    retention_days: Mapped[int | None]
    retention_from: Mapped[Timestamp | None]
    created_at: Mapped[CreatedAt]
