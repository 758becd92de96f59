"""Who may do what: users, their roles in projects, their keys, and what was changed by whom."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings_base import Closed

UserName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._\-]*$")]
Scope = Literal["read", "write"]


class Role(StrEnum):
    """What a user may do in a project. `viewer`: read. `member`: also submit and steer jobs, and upload data.
    `admin`: also say who belongs to it."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do all that the other one may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class User(Record):
    """Somebody, or a program. An `admin` may do everything in every project, and manages users and machines."""

    name: str
    admin: bool
    active: bool = Field(description="False: none of the user's keys is accepted")
    created_at: datetime


class NewUser(Closed):
    """A user to be added."""

    name: UserName
    admin: bool = False


class UserChanges(Closed):
    """What may be changed of a user; what is left out stays."""

    admin: bool | None = None
    active: bool | None = None


class Me(Record):
    """Whose key this is."""

    user: str
    admin: bool
    scope: Scope
    projects: dict[str, Role] = Field(description="the user's roles; an admin may do everything in all projects")

    def may_change(self, project: str) -> bool:
        """Whether jobs may be submitted and steered in a project with this key."""
        role = self.projects.get(project)
        return self.scope == "write" and (self.admin or (role is not None and role.includes(Role.MEMBER)))


class Member(Record):
    """A user's role in a project."""

    user: str
    role: Role


class MemberRole(Closed):
    """The role that a user is to have."""

    role: Role


class ApiKey(Record):
    """A key, without the key itself, which is kept nowhere."""

    id: UUID
    user: str
    name: str
    scope: Scope = Field(description="read: may ask for everything that its user sees, and change nothing")
    prefix: str = Field(description="how the key begins, to know it by")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute")
    revoked_at: datetime | None


class NewKey(Closed):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=120, description="what it is for")
    scope: Scope = "write"
    expires_days: float | None = Field(None, gt=0, le=3660, description="days from now; None: never")
    user: UserName | None = Field(None, description="whose; only an admin may name somebody else")


class CreatedKey(ApiKey):
    """A new key. `key` is shown this once."""

    key: str


class AuditEntry(Record):
    """A change that somebody made."""

    id: int
    ts: datetime
    user: str
    key_id: UUID | None
    action: str = Field(description="the request's method and route", examples=["POST /v1/jobs/{job_id}/cancel"])
    path: str
    project: str | None
    request_id: str
