"""Permissions: users, their roles in projects, their keys, and the audit log."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from calibrl.schemas.base import Record, Slug
from calibrl_core.settings.base import StrictSettings

UserName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._\-]*$")]
Scope = Literal["read", "write"]
TOKEN_PREFIX = "calibrl-session-"  # of tokens of sessions; keys begin differently
LAST_ID = 2**63 - 1  # larger than any id of an entry


class Role(StrEnum):
    """Role of a user in a project. `viewer` can read. `member` can also submit and control jobs, and upload data.
    `admin` can also manage members and webhooks."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Return True if this role has all permissions of the other role."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class User(Record):
    """A person or a program. An `admin` can do everything in every project, and manages users and machines."""

    name: str
    admin: bool
    active: bool = Field(description="False: none of the user's keys is accepted.")
    created_at: datetime


class NewUser(StrictSettings):
    """A new user."""

    name: UserName
    admin: bool = False


class UserChanges(StrictSettings):
    """Changes of a user. Fields that are left out stay as they are."""

    admin: bool | None = None
    active: bool | None = None


class Me(Record):
    """The user of a key, and the permissions of the key."""

    user: str
    key_id: UUID = Field(description="Id of the key. With the token of a session: of the key that it began with.")
    admin: bool
    scope: Scope
    projects: dict[str, Role] = Field(
        description="Role of the user in each project. An admin can do everything in all projects."
    )

    def may_change(self, project: str) -> bool:
        """Return True if this key can submit and control jobs in a project."""
        return self._has(Role.MEMBER, project)

    def may_administer(self, project: str) -> bool:
        """Return True if this key can change members and webhooks of a project."""
        return self._has(Role.ADMIN, project)

    def _has(self, least: Role, project: str) -> bool:
        role = self.projects.get(project)
        return self.scope == "write" and (self.admin or (role is not None and role.includes(least)))


class Member(Record):
    """A user's role in a project."""

    user: str
    role: Role


class MemberRole(StrictSettings):
    """A new role of a user in a project."""

    role: Role


class ApiKey(Record):
    """An API key without the key itself, which is not stored."""

    id: UUID
    user: str
    name: str
    scope: Scope = Field(
        description="read: can read everything that its user can see, and change nothing. write: can also change."
    )
    prefix: str = Field(description="First characters of the key, to recognise it.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Time of the last use, accurate to one minute.")
    revoked_at: datetime | None
    made_by: UUID | None = Field(None, description="Id of the key that created it. None: not known, or no key.")


class NewKey(StrictSettings):
    """A new API key."""

    name: str = Field(min_length=1, max_length=120, description="Purpose of the key.")
    scope: Scope = "write"
    expires_days: float | None = Field(None, gt=0, le=3660, description="Days until the key expires. None: never.")
    user: UserName | None = Field(
        None, description="User that the key is for. Only an admin can name another user. None: the caller."
    )


class CreatedKey(ApiKey):
    """A new API key. `key` is only returned once."""

    key: str


class CreatedSession(Record):
    """A session of a browser. Its token replaces the API key in requests."""

    token: str = Field(description="Sent as `Authorization: Bearer TOKEN`. It is shown once.")
    expires_at: datetime


class AuditFilter(BaseModel):
    """Entries of the audit log to list, newest first. Without `project`: for admins of the service."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: numbers of a query are texts

    project: Slug | None = Field(None, description="Slug of the project.")
    user: UserName | None = Field(None, description="Name of the user who made the change.")
    action: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Text in the method and route, such as `DELETE` or `/cancel`; upper and lower case are equal.",
    )
    created_after: AwareDatetime | None = Field(None, description="Changes at this time or later.")
    created_before: AwareDatetime | None = Field(None, description="Changes before this time.")
    before: int = Field(LAST_ID, ge=1, le=LAST_ID, description="Id of the last entry of the previous page.")
    limit: int = Field(100, ge=1, le=1000, description="Maximum number of items per page.")


class AuditEntry(Record):
    """A change, download or refused key, with its user."""

    id: int
    ts: datetime
    user: str = Field(description="Empty: a key that no user has.")
    key_id: UUID | None
    action: str = Field(
        description="Method and route of the request, or `refuse a key`.", examples=["POST /v1/jobs/{job_id}/cancel"]
    )
    path: str
    project: str | None
    request_id: str
    object: str | None = Field(
        None, description="Id of what was created, changed or removed, if the path does not name it."
    )
    before: dict[str, Any] | None = Field(
        None, description="Fields before the change that differ. None: it did not exist."
    )
    after: dict[str, Any] | None = Field(None, description="The same fields after the change. None: it was removed.")
