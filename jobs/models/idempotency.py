"""Responses to requests that a client can send again, by a key that the client chose."""

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt


class IdempotencyKey(Base):
    """Stored response. `caller`: digest of the caller; `request`: digest of the request. Written with the change
    itself."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int]
    location: Mapped[str | None]
    media_type: Mapped[str | None]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt] = mapped_column(index=True)
