"""Who asks, and whether they may: keys become callers, and callers have roles in projects."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from calibrl.schemas import ApiKey, CreatedKey, NewKey, NewUser, Role, Scope, UserChanges
from jobs import models
from jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from jobs.repository import access, audit, projects

KEY_BYTES = 32
PREFIX = "calibrl_"
SHOWN = len(PREFIX) + 6  # of a key, to know it by
SERVICE_ADMIN = "admin"  # whose key the service's own settings name
SERVICE_KEY = "CALIBRL_API_KEY of the service"


@dataclass
class Caller:
    """Who makes a request. `project` is the one it changes something in, for the audit log."""

    user: str
    key_id: UUID
    admin: bool
    scope: Scope
    roles: Mapping[str, Role] = field(default_factory=dict)
    project: str | None = None

    @property
    def projects(self) -> frozenset[str] | None:
        """The projects that the caller sees; None: all."""
        return None if self.admin else frozenset(self.roles)

    def sees(self, project: str) -> bool:
        """Whether a project's things exist for the caller."""
        return self.admin or project in self.roles

    def need(self, project: str, role: Role) -> None:
        """Go on only if the caller has at least this role in a project that it sees.

        Raises:
            NotFound: the caller does not see the project.
            Forbidden: the caller's role there is a lesser one.
        """
        if not self.sees(project):
            raise NotFound(f"There is no project {project}.")
        if not self.admin and not self.roles[project].includes(role):
            raise Forbidden(f"This needs the role {role} in project {project}; yours is {self.roles[project]}.")
        self.project = project

    def need_where_seen(self, project: str, role: Role) -> None:
        """The same for a project that a body names: one that the caller does not see is left to be refused with the
        other fields, as one that does not exist.

        Raises:
            Forbidden: the caller's role there is a lesser one.
        """
        if self.sees(project):
            self.need(project, role)

    def need_admin(self) -> None:
        """Go on only for an admin of the service.

        Raises:
            Forbidden: the caller is none.
        """
        if not self.admin:
            raise Forbidden("This needs an admin of the service.")


def hashed(key: str) -> bytes:
    """What is kept of a key: its SHA-256."""
    return hashlib.sha256(key.encode()).digest()


def identify(session: Session, key: str) -> Caller | None:
    """Whose key this is; None for one that is unknown, expired, revoked or of a user who is not active."""
    return _caller(access.valid_key(session, hashed(key)))


def still(session: Session, caller: Caller) -> Caller | None:
    """A caller as it would be identified now: roles come and go, and so do keys."""
    return _caller(access.still_valid(session, caller.key_id))


def _caller(found: Row[Any] | None) -> Caller | None:
    if found is None:
        return None
    roles = {project: Role(role) for project, role in found.roles.items()}
    return Caller(found.user, found.id, found.admin, found.scope, roles)


def keep_service_key(session: Session, key: str, request_id: str) -> None:
    """Have the key that the service's settings name be an admin's, in place of the one they named before. One that was
    revoked stays so."""
    access.add_user(session, SERVICE_ADMIN, admin=True)
    kept = _keep(session, SERVICE_ADMIN, key, NewKey(name=SERVICE_KEY))
    if kept is None:
        return
    for other in access.keys(session, SERVICE_ADMIN):
        if other.name == SERVICE_KEY and other.id != kept.id:
            access.revoke(session, other)
    _note(session, SERVICE_ADMIN, "keep the service's key", request_id, key_id=kept.id)


def first_admin(session: Session, name: str) -> str:
    """Add an admin, or make a user one, with a new key: the key."""
    user = access.add_user(session, name, admin=True) or access.user(session, name)
    user.admin = user.active = True
    session.flush()
    made = create_key(session, user.name, NewKey(name="made on the command line"))
    _note(session, user.name, "python -m jobs.access.first_admin", request_id="", key_id=made.id)
    return made.key


def add_user(session: Session, new: NewUser) -> models.User:
    """A new user, who belongs to no project yet.

    Raises:
        Conflict: the name is taken.
    """
    user = access.add_user(session, new.name, admin=new.admin)
    if user is None:
        raise Conflict(f"There is a user {new.name} already.")
    return user


def change_user(session: Session, name: str, changes: UserChanges) -> models.User:
    """Make a user an admin or not, active or not.

    Raises:
        NotFound: there is no such user.
        Conflict: nobody could manage the service any more.
    """
    user = access.user(session, name)
    admin = user.admin if changes.admin is None else changes.admin
    active = user.active if changes.active is None else changes.active
    if user.admin and user.active and not (admin and active) and not access.other_admins(session, name):
        raise Conflict(f"{name} is the only active admin: make another one first.")
    user.admin, user.active = admin, active
    return user


def put_member(session: Session, project: str, user: str, role: Role) -> None:
    """Give a user a role in a project.

    Raises:
        NotFound: there is no such project or user.
    """
    projects.get(session, project)
    access.put_member(session, project, access.user(session, user).name, role)


def remove_member(session: Session, project: str, user: str) -> None:
    """Take a user out of a project.

    Raises:
        NotFound: the user is not in it.
    """
    if not access.remove_member(session, project, user):
        raise NotFound(f"{user} does not belong to project {project}.")


def create_key(session: Session, user: str, new: NewKey, maker: UUID | None = None) -> CreatedKey:
    """A new key of a user, with the key itself; it ends when the key `maker` does, if not before.

    Raises:
        Invalid: there is no such user.
    """
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    row = _keep(session, user, key, new, maker)
    assert row is not None, "256 random bits were drawn twice"
    return CreatedKey(**ApiKey.model_validate(row).model_dump(), key=key)


def _note(session: Session, user: str, action: str, request_id: str, *, key_id: UUID) -> None:
    """A change that no endpoint makes: `key_id` is the key that it has made, and there is no request's path."""
    audit.add(session, user=user, key_id=key_id, action=action, path="", project=None, request_id=request_id)


def _keep(session: Session, user: str, key: str, new: NewKey, maker: UUID | None = None) -> models.ApiKey | None:
    try:
        access.user(session, user)
    except NotFound as error:
        raise Invalid("The key was not made.", (FieldError("user", error.detail),)) from None
    return access.add_key(
        session,
        user,
        name=new.name,
        scope=new.scope,
        prefix=key[:SHOWN] if key.startswith(PREFIX) else "",
        sha256=hashed(key),
        days=new.expires_days,
        maker=maker,
    )
