"""Authentication and roles: API keys identify callers, and callers have roles in projects."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from calibrl.schemas import TOKEN_PREFIX, ApiKey, CreatedKey, NewKey, NewUser, Role, Scope, UserChanges
from jobs import models
from jobs.access.changes import Fields, ObjectChange, between
from jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from jobs.repository import access, audit, projects

KEY_BYTES = 32
MOST_KEYS = 100  # valid keys of a user
PREFIX = "calibrl_"
SHOWN_KEY_LENGTH = len(PREFIX) + 6  # first characters of a key, to recognise it
DEFAULT_PROJECT = "default"
SERVICE_ADMIN = "admin"  # owner of the key in the settings of the service
SERVICE_KEY = "CALIBRL_API_KEY of the service"


@dataclass
class Caller:
    """The user and key of a request. `session_id`: session of the browser that sent it with a token instead of a key.
    `project`, `change`: project that the request changes, and what it changes, for the audit log."""

    user: str
    key_id: UUID
    admin: bool
    scope: Scope
    roles: Mapping[str, Role] = field(default_factory=dict)
    session_id: UUID | None = None
    project: str | None = None
    change: ObjectChange | None = None

    def changed(self, object: object, before: Fields = None, after: Fields = None) -> None:
        """Name the object that the request changes for the audit log, by its id, with its record before and after."""
        self.change = between(object, before, after)

    @property
    def projects(self) -> frozenset[str] | None:
        """The projects that the caller can see; None: all."""
        return None if self.admin else frozenset(self.roles)

    def sees(self, project: str) -> bool:
        """Return True if the caller can see a project."""
        return self.admin or project in self.roles

    def usual_project(self, field: str) -> str:
        """Return the project of a request that names none: `default`, else the caller's only project.

        Raises:
            Invalid: the caller belongs to several projects, or to none. `field`: where a project is named.
        """
        if self.sees(DEFAULT_PROJECT):
            return DEFAULT_PROJECT
        own = sorted(self.roles)
        if len(own) != 1:
            belongs = f"you belong to {', '.join(own)}: name one" if own else "you belong to no project"
            raise Invalid("The project is not known.", (FieldError(field, belongs),))
        return own[0]

    def need(self, project: str, role: Role) -> None:
        """Require a role in a project.

        Raises:
            NotFound: the caller cannot see the project.
            Forbidden: the role of the caller is lower.
        """
        if not self.sees(project):
            raise NotFound(f"There is no project {project}.")
        if not self.admin and not self.roles[project].includes(role):
            raise Forbidden(f"This requires the role {role} in project {project}; yours is {self.roles[project]}.")
        self.project = project

    def need_named(self, project: str, role: Role) -> None:
        """Require a role in a project that the body of a request names.

        Raises:
            Invalid: the caller cannot see the project. No other field is looked into for them.
            Forbidden: the role of the caller is lower.
        """
        if not self.sees(project):
            fault = FieldError("project", f"project {project!r} does not exist")
            raise Invalid("The request was not accepted.", (fault,))
        self.need(project, role)

    def need_admin(self) -> None:
        """Require an admin of the service.

        Raises:
            Forbidden: the caller is not an admin.
        """
        if not self.admin:
            raise Forbidden("This requires an admin of the service.")


def key_hash(key: str) -> bytes:
    """Return the SHA-256 of a key, which is stored instead of the key."""
    return hashlib.sha256(key.encode()).digest()


def identify(session: Session, key: str) -> Caller | None:
    """Return the caller of a key or of the token of a session, or None if the key is unknown, expired, revoked or of an
    inactive user, or the session has ended."""
    find = access.valid_session if key.startswith(TOKEN_PREFIX) else access.valid_key
    return _caller(find(session, key_hash(key)))


def reidentify(session: Session, caller: Caller) -> Caller | None:
    """Identify a caller again, with its present roles, or return None if its key or session is not valid any more."""
    return _caller(access.still_valid(session, caller.key_id, caller.session_id))


def acting_for(session: Session, user: str) -> Caller | None:
    """Return a user with the present roles, as the caller of what the service does for this user without a request;
    None: there is no such active user."""
    row = access.active_user(session, user)
    return None if row is None else _caller(row)


def _caller(row: Row[Any] | None) -> Caller | None:
    if row is None:
        return None
    roles = {project: Role(role) for project, role in row.roles.items()}
    return Caller(row.user, row.id, row.admin, row.scope, roles, row.session_id)


def keep_service_key(session: Session, key: str, request_id: str) -> None:
    """Store the key of the service's settings as a key of an admin, and revoke the previous one. A revoked key stays
    revoked."""
    access.add_user(session, SERVICE_ADMIN, admin=True)
    stored = _keep(session, SERVICE_ADMIN, key, NewKey(name=SERVICE_KEY))
    if stored is None:
        return
    for other in access.keys(session, SERVICE_ADMIN):
        if other.name == SERVICE_KEY and other.id != stored.id:
            access.revoke(session, other)
    _note(session, SERVICE_ADMIN, "keep the service's key", request_id, key_id=stored.id)


def first_admin(session: Session, name: str) -> str:
    """Add an admin, or make a user an admin, and return a new key."""
    user = access.add_user(session, name, admin=True) or access.user(session, name)
    user.admin = user.active = True
    session.flush()
    key = create_key(session, user.name, NewKey(name="made on the command line"))
    _note(session, user.name, "python -m jobs.access.first_admin", request_id="", key_id=key.id)
    return key.key


def add_user(session: Session, new: NewUser) -> models.User:
    """Add a user without projects.

    Raises:
        Conflict: the name is taken.
    """
    user = access.add_user(session, new.name, admin=new.admin)
    if user is None:
        raise Conflict(f"User {new.name} already exists.")
    return user


def change_user(session: Session, name: str, changes: UserChanges) -> models.User:
    """Change whether a user is an admin and active.

    Raises:
        NotFound: no such user.
        Conflict: the user is the last active admin.
    """
    user = access.user(session, name)
    admin = user.admin if changes.admin is None else changes.admin
    active = user.active if changes.active is None else changes.active
    if user.admin and user.active and not (admin and active) and not access.other_admins(session, name):
        raise Conflict(f"{name} is the only active admin: make another user an admin first.")
    user.admin, user.active = admin, active
    return user


def remove_user(session: Session, name: str) -> None:
    """Remove a user with all keys and roles.

    Raises:
        NotFound: no such user.
        Conflict: the user is the last active admin, or owns the key of the service.
    """
    user = access.lock_user(session, name)
    if name == SERVICE_ADMIN:  # a revoked key of the service would be stored again, as valid
        raise Conflict(f"{name} owns the key of the service's settings: make the user inactive instead.")
    if user.admin and user.active and not access.other_admins(session, name):
        raise Conflict(f"{name} is the only active admin: make another user an admin first.")
    access.remove_user(session, user)


def put_member(session: Session, project: str, user: str, role: Role) -> None:
    """Give a user a role in a project.

    Raises:
        NotFound: no such project or user.
    """
    projects.get(session, project)
    access.put_member(session, project, access.user(session, user).name, role)


def remove_member(session: Session, project: str, user: str) -> None:
    """Remove a user from a project.

    Raises:
        NotFound: the user is not a member.
    """
    if not access.remove_member(session, project, user):
        raise NotFound(f"{user} is not a member of project {project}.")


def create_key(session: Session, user: str, new: NewKey, maker: UUID | None = None) -> CreatedKey:
    """Create a key of a user and return it. It expires with the key `maker` at the latest.

    Raises:
        Invalid: no such user.
        Conflict: the user has too many valid keys.
    """
    if access.count_valid(session, user) >= MOST_KEYS:
        raise Conflict(f"User {user} has {MOST_KEYS} valid keys: revoke one first.")
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    row = _keep(session, user, key, new, maker)
    assert row is not None, "two equal keys of 256 random bits"
    return CreatedKey(**ApiKey.model_validate(row).model_dump(), key=key)


def note_refusal(session: Session, key: str, *, path: str, request_id: str, address: str) -> None:
    """Record a refused key: its owner if it was revoked or has expired, its first characters, and the address that
    sent it."""
    row = access.key_of(session, key_hash(key))
    audit.add(
        session,
        user=row.user if row else "",
        key_id=row.id if row else None,
        action="refuse a key",
        path=path,
        project=None,
        request_id=request_id,
        object=key[:SHOWN_KEY_LENGTH] if key.startswith(PREFIX) else None,
        after={"address": address},
    )


def _note(session: Session, user: str, action: str, request_id: str, *, key_id: UUID) -> None:
    """Record a change that no endpoint makes, with the key that it created and without a path."""
    audit.add(session, user=user, key_id=key_id, action=action, path="", project=None, request_id=request_id)


def _keep(session: Session, user: str, key: str, new: NewKey, maker: UUID | None = None) -> models.ApiKey | None:
    try:
        access.user(session, user)
    except NotFound as error:
        raise Invalid("The key was not created.", (FieldError("user", error.detail),)) from None
    return access.add_key(
        session,
        user,
        name=new.name,
        scope=new.scope,
        prefix=key[:SHOWN_KEY_LENGTH] if key.startswith(PREFIX) else "",
        sha256=key_hash(key),
        days=new.expires_days,
        maker=maker,
    )
