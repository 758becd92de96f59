"""API keys, users and the audit log."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query

from api.deps import MAX_ID, Admin, CurrentCaller, Db, Limit, page
from api.examples import KEYS, USERS
from api.idempotency import IdempotentRoute
from calibrl.schemas import (
    ApiKey,
    AuditEntry,
    CreatedKey,
    Me,
    NewKey,
    NewUser,
    Page,
    Role,
    Slug,
    User,
    UserChanges,
    UserName,
)
from jobs.access import callers
from jobs.errors import Forbidden, NotFound
from jobs.repository import access as rows
from jobs.repository import audit

router = APIRouter(tags=["access"], route_class=IdempotentRoute)
Named = Annotated[UserName, Path(description="Name of the user.")]


@router.get("/me")
def read_me(caller: CurrentCaller) -> Me:
    """Return the owner and the permissions of this key."""
    return Me(user=caller.user, admin=caller.admin, scope=caller.scope, projects=dict(caller.roles))


@router.get("/users")
def list_users(
    session: Db,
    caller: Admin,
    after: Annotated[str, Query(max_length=63, description="Name of the last user of the previous page.")] = "",
    limit: Limit = 100,
) -> Page[User]:
    """List users by name; for admins."""
    return page(rows.users(session, after=after, limit=limit + 1), limit, User)


@router.post("/users", status_code=201)
def add_user(new: Annotated[NewUser, Body(openapi_examples=USERS)], session: Db, caller: Admin) -> User:
    """Add a user; for admins. A new user has no key and belongs to no project."""
    return User.model_validate(callers.add_user(session, new))


@router.patch("/users/{name}")
def change_user(name: Named, changes: UserChanges, session: Db, caller: Admin) -> User:
    """Set whether a user is an admin and is active; for admins. The last active admin cannot be changed."""
    return User.model_validate(callers.change_user(session, name, changes))


@router.get("/keys")
def list_keys(session: Db, caller: CurrentCaller, user: UserName | None = None) -> Page[ApiKey]:
    """List your API keys, newest first; an admin can list another user's."""
    return Page(data=[ApiKey.model_validate(row) for row in rows.keys(session, _whose(caller, user))], has_more=False)


@router.post("/keys", status_code=201)
def create_key(new: Annotated[NewKey, Body(openapi_examples=KEYS)], session: Db, caller: CurrentCaller) -> CreatedKey:
    """Create an API key. It is shown only in this answer. It expires no later than the key that created it.

    Only admins can create a key for another user.
    """
    return callers.create_key(session, _whose(caller, new.user), new, caller.key_id)


@router.delete("/keys/{key_id}")
def revoke_key(key_id: UUID, session: Db, caller: CurrentCaller) -> ApiKey:
    """Revoke an API key. You can revoke your own keys; an admin can revoke any key."""
    key = rows.key(session, key_id)
    if key is None or not (caller.admin or key.user == caller.user):
        raise NotFound(f"There is no key {key_id}.")
    rows.revoke(session, key)
    return ApiKey.model_validate(key)


@router.get("/audit")
def list_audit(
    session: Db,
    caller: CurrentCaller,
    project: Slug | None = None,
    user: UserName | None = None,
    before: Annotated[int, Query(ge=1, le=MAX_ID, description="Id of the last entry of the previous page.")] = MAX_ID,
    limit: Limit = 100,
) -> Page[AuditEntry]:
    """List the audit log, newest first: for admins, and with `project` for admins of that project."""
    if project is None:
        caller.need_admin()
    else:
        caller.need(project, Role.ADMIN)
    return page(audit.page(session, project=project, user=user, before=before, limit=limit + 1), limit, AuditEntry)


def _whose(caller: callers.Caller, user: str | None) -> str:
    if user not in (None, caller.user) and not caller.admin:
        raise Forbidden("Keys of other users are for admins of the service.")
    return user or caller.user
