"""Views of the dashboard that users saved by name."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt


class SavedView(Base):
    """Address of a page, with its choices, under a name of one user."""

    __tablename__ = "saved_views"

    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str]
    created_at: Mapped[CreatedAt]
