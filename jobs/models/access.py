"""Users, their roles in projects, their keys and sessions of browsers, and the audit log."""

from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, LargeBinary, false, true
from sqlalchemy.orm import Mapped, mapped_column

from calibrl.schemas import Role
from jobs.models.base import Base, CreatedAt, SafeText, Serial, Timestamp


class User(Base):
    """A person or a service account; `admin` can do everything."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    admin: Mapped[bool] = mapped_column(default=False, server_default=false())
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[CreatedAt]


class Membership(Base):
    """Role of a user in a project."""

    __tablename__ = "memberships"

    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("projects.slug", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[Role]


class ApiKey(Base):
    """API key as `sha256` only. A key of 256 random bits needs no salt and no slow hash."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    scope: Mapped[Literal["read", "write"]] = mapped_column(SafeText)
    prefix: Mapped[str]
    sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp | None]
    last_used_at: Mapped[Timestamp | None]
    revoked_at: Mapped[Timestamp | None]
    made_by: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="SET NULL"), index=True)


class BrowserSession(Base):
    """A browser that is signed in to the dashboard with an API key. The token in its cookie is stored as `sha256`."""

    __tablename__ = "browser_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp] = mapped_column(index=True)


class AuditEntry(Base):
    """Change, download or refused key in the audit log. Stays after its user, key and project are deleted.

    `object`: id of what was created or changed. `before`, `after`: its fields that differ; None: it did not exist.
    """

    __tablename__ = "audit"
    __table_args__ = (Index(None, "project", "id"),)

    id: Mapped[Serial]
    ts: Mapped[CreatedAt]
    user: Mapped[str]
    key_id: Mapped[UUID | None]
    action: Mapped[str]
    path: Mapped[str]
    project: Mapped[str | None]
    request_id: Mapped[str]
    object: Mapped[str | None]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
