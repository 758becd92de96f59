"""API keys, users and the audit log."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api import preconditions
from api.deps import MAX_ID, Admin, CurrentCaller, Db, Limit, page
from api.examples import KEYS, USERS
from api.idempotency import IdempotentRoute
from api.preconditions import IfMatch
from api.tables import attachment
from calibrl.schemas import (
    ApiKey,
    AuditEntry,
    AuditFilter,
    CreatedKey,
    CreatedSession,
    Me,
    NewKey,
    NewUser,
    Page,
    Role,
    Scope,
    Slug,
    User,
    UserChanges,
    UserName,
)
from jobs import models
from jobs.access import browser_sessions, callers
from jobs.db import TRANSACTION_SECONDS, session_scope
from jobs.errors import FieldError, Forbidden, Invalid, NotFound
from jobs.repository import access as rows
from jobs.repository import audit

router = APIRouter(tags=["access"], route_class=IdempotentRoute)
JSON_LINES = "application/jsonl"
LINES = {JSON_LINES: {"schema": {"type": "string"}}}
ENTRIES_AT_ONCE = 1000
# An entry with a smaller id can be of a transaction that began as late as the end of the one before, and lasts as long.
SETTLED = timedelta(seconds=2 * TRANSACTION_SECONDS)
Named = Annotated[UserName, Path(description="Name of the user.")]


@router.get("/me")
def read_me(caller: CurrentCaller) -> Me:
    """Return the owner and the permissions of this key."""
    return Me(
        user=caller.user, key_id=caller.key_id, admin=caller.admin, scope=caller.scope, projects=dict(caller.roles)
    )


@router.post("/sessions", status_code=201)
def begin_session(session: Db, caller: CurrentCaller) -> CreatedSession:
    """Begin a session of a browser with this API key. It ends after 12 hours, and with the key."""
    return browser_sessions.begin(session, caller)


@router.delete("/sessions/current", status_code=204)
def end_session(session: Db, caller: CurrentCaller) -> None:
    """End the session whose token this request has."""
    browser_sessions.end(session, caller)


@router.get("/users")
def list_users(
    session: Db,
    caller: Admin,
    q: Annotated[str | None, Query(min_length=1, max_length=63, description="Text in the name.")] = None,
    admin: Annotated[bool | None, Query(description="Only admins, or only others.")] = None,
    active: Annotated[bool | None, Query(description="Only users whose keys are accepted, or only others.")] = None,
    after: Annotated[str, Query(max_length=63, description="Name of the last user of the previous page.")] = "",
    limit: Limit = 100,
) -> Page[User]:
    """List users by name; for admins."""
    found = rows.users(session, text=q, admin=admin, active=active, after=after, limit=limit + 1)
    return page(found, limit, User)


@router.post("/users", status_code=201)
def add_user(
    new: Annotated[NewUser, Body(openapi_examples=USERS)], session: Db, caller: Admin, response: Response
) -> User:
    """Add a user; for admins. A new user has no key and belongs to no project."""
    response.headers["Location"] = f"/v1/users/{new.name}"
    user = _tagged(callers.add_user(session, new), response)
    caller.changed(user.name, None, user)
    return user


@router.get("/users/{name}")
def read_user(name: Named, session: Db, caller: Admin, response: Response) -> User:
    """Return one user; for admins."""
    return _tagged(rows.user(session, name), response)


@router.patch("/users/{name}")
def change_user(
    name: Named, changes: UserChanges, session: Db, caller: Admin, response: Response, if_match: IfMatch = None
) -> User:
    """Set whether a user is an admin and is active; for admins. The last active admin cannot be changed."""
    row = rows.lock_user(session, name)
    before = User.model_validate(row)
    preconditions.check(if_match, row, preconditions.EDITED["user"])
    user = _tagged(callers.change_user(session, name, changes), response)
    caller.changed(name, before, user)
    return user


@router.delete("/users/{name}", status_code=204)
def remove_user(name: Named, session: Db, caller: Admin) -> None:
    """Remove a user with all keys and roles; for admins. The jobs stay. The last active admin cannot be removed."""
    caller.changed(name, User.model_validate(rows.user(session, name)))
    callers.remove_user(session, name)


def _tagged(row: models.User, response: Response) -> User:
    user = User.model_validate(row)
    preconditions.set_tag(response, user, preconditions.EDITED["user"])
    return user


@router.get("/keys")
def list_keys(
    session: Db,
    caller: CurrentCaller,
    user: UserName | None = None,
    valid: Annotated[
        bool | None, Query(description="Only keys that are neither revoked nor expired, or only others.")
    ] = None,
    scope: Annotated[Scope | None, Query(description="Only keys with this scope.")] = None,
) -> Page[ApiKey]:
    """List your API keys, newest first; an admin can list another user's."""
    found = rows.keys(session, _whose(caller, user), valid=valid, scope=scope)
    return Page(data=[ApiKey.model_validate(row) for row in found], has_more=False)


@router.post("/keys", status_code=201)
def create_key(
    new: Annotated[NewKey, Body(openapi_examples=KEYS)], session: Db, caller: CurrentCaller, response: Response
) -> CreatedKey:
    """Create an API key. It is shown only in this answer. It expires no later than the key that created it.

    Only admins can create a key for another user. A request by a session must give `expires_days`.
    """
    owner = _whose(caller, new.user)
    if caller.session_id is not None and new.expires_days is None:
        remedy = "is required in a request by a session: give the days, or create the key with an API key"
        raise Invalid("The key was not created.", (FieldError("expires_days", remedy),))
    created = callers.create_key(session, owner, new, caller.key_id)
    response.headers["Location"] = f"/v1/keys/{created.id}"
    caller.changed(created.id, None, created)
    return created


@router.get("/keys/{key_id}")
def read_key(key_id: UUID, session: Db, caller: CurrentCaller) -> ApiKey:
    """Return one of your API keys, without its text; an admin can read any key."""
    return ApiKey.model_validate(_own_key(session, caller, key_id))


@router.delete("/keys/{key_id}")
def revoke_key(
    key_id: UUID,
    session: Db,
    caller: CurrentCaller,
    descendants: Annotated[
        bool, Query(description="Also revoke the keys that this key made, the keys that those made, and so on.")
    ] = False,
) -> ApiKey:
    """Revoke an API key. You can revoke your own keys; an admin can revoke any key."""
    key = _own_key(session, caller, key_id)
    before = ApiKey.model_validate(key)
    also = rows.revoke_descendants(session, key, None if caller.admin else caller.user) if descendants else []
    rows.revoke(session, key)
    revoked = ApiKey.model_validate(key)
    listed = {"descendants": sorted(map(str, also))} if also else {}
    caller.changed(key_id, before, revoked.model_dump(mode="json") | listed)
    return revoked


def _own_key(session: Session, caller: callers.Caller, key_id: UUID) -> models.ApiKey:
    key = rows.key(session, key_id)
    if key is None or not (caller.admin or key.user == caller.user):
        raise NotFound(f"There is no key {key_id}.")
    return key


@router.get("/audit")
def list_audit(session: Db, caller: CurrentCaller, filters: Annotated[AuditFilter, Query()]) -> Page[AuditEntry]:
    """List the audit log, newest first: for admins, and with `project` for admins of that project."""
    _need_audit(caller, filters.project)
    return page(audit.page(session, filters), filters.limit, AuditEntry)


@router.get("/audit/export", response_class=StreamingResponse, responses={200: {"content": LINES}})
def export_audit(
    caller: CurrentCaller,
    project: Slug | None = None,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="Id of the last entry that you have.")] = 0,
) -> StreamingResponse:
    """Download the audit log as JSON lines, oldest first, without the last two minutes, which the next export has: for
    admins, and with `project` for admins of that project."""
    _need_audit(caller, project)
    return attachment("audit.jsonl", JSON_LINES, _entries(project, after))


def _need_audit(caller: callers.Caller, project: str | None) -> None:
    if project is None:
        caller.need_admin()
    else:
        caller.need(project, Role.ADMIN)


def _entries(project: str | None, after: int) -> Iterator[bytes]:
    while True:
        with session_scope() as session:
            found = [
                AuditEntry.model_validate(row)
                for row in audit.after(session, after, project=project, limit=ENTRIES_AT_ONCE, settled=SETTLED)
            ]
        if not found:
            return
        yield b"".join(entry.model_dump_json().encode() + b"\n" for entry in found)
        after = found[-1].id


def _whose(caller: callers.Caller, user: str | None) -> str:
    if user not in (None, caller.user) and not caller.admin:
        raise Forbidden("Keys of other users are for admins of the service.")
    return user or caller.user
