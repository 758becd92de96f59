"""Users, their roles in projects, and their keys."""

from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Row,
    Select,
    Uuid,
    and_,
    bindparam,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from calibrl.schemas import Role, Scope
from jobs.errors import NotFound
from jobs.models import ApiKey, BrowserSession, Membership, User

USED_AGAIN = timedelta(minutes=1)  # accuracy of the last use of a key
NO_KEY = UUID(int=0)  # of what the service does for a user without a request


def user(session: Session, name: str) -> User:
    """Return a user.

    Raises:
        NotFound: no user has this name.
    """
    row = session.get(User, name)
    if row is None:
        raise NotFound(f"There is no user {name}.")
    return row


def lock_user(session: Session, name: str) -> User:
    """Lock and return a user.

    Raises:
        NotFound: no user has this name.
    """
    query = select(User).where(User.name == name).with_for_update()
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise NotFound(f"There is no user {name}.")
    return row


def remove_user(session: Session, user: User) -> None:
    """Remove a user with all keys and roles."""
    session.delete(user)


def users(
    session: Session, *, text: str | None, admin: bool | None, active: bool | None, after: str, limit: int
) -> list[User]:
    """Return users by name, starting after `after`; only those with `text` in the name, None: with any."""
    query = select(User).where(User.name > after)
    if text is not None:
        query = query.where(User.name.contains(text, autoescape=True))
    for column, wanted in ((User.admin, admin), (User.active, active)):
        query = query if wanted is None else query.where(column.is_(wanted))
    return list(session.scalars(query.order_by(User.name).limit(limit)))


def add_user(session: Session, name: str, *, admin: bool) -> User | None:
    """Add and return a user, or return None if the name is taken."""
    statement = insert(User).values(name=name, admin=admin).on_conflict_do_nothing().returning(User)
    return session.scalar(statement)


def other_admins(session: Session, name: str) -> int:
    """Return the number of active admins besides this user. Their rows are share-locked, so that two admins cannot
    be removed at the same time."""
    query = select(User).where(User.admin, User.active, User.name != name).order_by(User.name)
    return len(session.scalars(query.with_for_update(read=True)).all())


def members(session: Session, project: str) -> list[Membership]:
    """Return the members of a project by name."""
    return list(session.scalars(select(Membership).where(Membership.project == project).order_by(Membership.user)))


def put_member(session: Session, project: str, user: str, role: Role) -> None:
    """Give a user a role in a project."""
    statement = insert(Membership).values(project=project, user=user, role=role)
    session.execute(
        statement.on_conflict_do_update(index_elements=[Membership.user, Membership.project], set_={"role": role})
    )


def remove_member(session: Session, project: str, user: str) -> bool:
    """Remove the role of a user in a project. Return False if there was none."""
    removed = (
        delete(Membership).where(Membership.project == project, Membership.user == user).returning(Membership.user)
    )
    return session.scalar(removed) is not None


def valid_key(session: Session, sha256: bytes) -> Row[Any] | None:
    """Return a usable key: its `id` and `scope`, its `user`, whether the user is an `admin`, and the `roles` of the
    user by project. Records the use of the key, at most once per minute."""
    return _used(session, session.execute(_usable_key(), {"sha256": sha256, "id": None}).one_or_none())


def valid_session(session: Session, sha256: bytes) -> Row[Any] | None:
    """Return the same columns as `valid_key` for the usable key of a valid session of a browser, and the `session_id`.
    Records the use of the key."""
    return _used(session, session.execute(_usable_session(), {"sha256": sha256, "id": None}).one_or_none())


def still_valid(session: Session, key_id: UUID, session_id: UUID | None) -> Row[Any] | None:
    """Return the same columns as `valid_key` or `valid_session` for a key or session that was used before, by id."""
    query, id = (_usable_key(), key_id) if session_id is None else (_usable_session(), session_id)
    return session.execute(query, {"sha256": None, "id": id}).one_or_none()


def _used(session: Session, row: Row[Any] | None) -> Row[Any] | None:
    if row is not None and not row.noted:
        session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=func.now()))
    return row


def active_user(session: Session, name: str) -> Row[Any] | None:
    """Return the same columns as `valid_key` for an active user, with the nil id and all rights of the user."""
    columns = (literal(NO_KEY, Uuid()).label("id"), literal("full").label("scope"), User.name.label("user"), User.admin)
    session_id = null().label("session_id")
    return session.execute(
        select(*columns, _roles().label("roles"), session_id).where(User.name == name, User.active)
    ).one_or_none()


def _roles() -> ColumnElement[Any]:
    """The roles of a user by project."""
    roles = select(func.jsonb_object_agg(Membership.project, Membership.role)).where(Membership.user == User.name)
    return func.coalesce(roles.scalar_subquery(), cast({}, JSONB))


@cache
def _usable_key() -> Select[*tuple[Any, ...]]:
    """Build the query for a key by `:sha256` or by `:id`, once, because every request runs it."""
    return _usable(null()).where(_is(ApiKey))


@cache
def _usable_session() -> Select[*tuple[Any, ...]]:
    """Build the query for the key of a session by the session's `:sha256` or `:id`, once."""
    query = _usable(BrowserSession.id).join(BrowserSession, BrowserSession.key_id == ApiKey.id)
    return query.where(_is(BrowserSession), BrowserSession.expires_at > func.now())


def _is(table: type[ApiKey | BrowserSession]) -> ColumnElement[bool]:
    return or_(table.sha256 == bindparam("sha256", type_=LargeBinary()), table.id == bindparam("id", type_=Uuid()))


def _usable(session_id: ColumnElement[Any] | InstrumentedAttribute[UUID]) -> Select[*tuple[Any, ...]]:
    in_time = ApiKey.expires_at.is_(None) | (ApiKey.expires_at > func.now())
    query = select(
        ApiKey.id,
        ApiKey.scope,
        User.name.label("user"),
        User.admin,
        _roles().label("roles"),
        (ApiKey.last_used_at > func.now() - USED_AGAIN).is_(True).label("noted"),
        session_id.label("session_id"),
    ).join(User, User.name == ApiKey.user)
    return query.where(ApiKey.revoked_at.is_(None), User.active, in_time)


def add_key(
    session: Session,
    user: str,
    *,
    name: str,
    scope: Scope,
    prefix: str,
    sha256: bytes,
    days: float | None,
    maker: UUID | None,
) -> ApiKey | None:
    """Store a new key, or return None if this key exists already. It expires with the key `maker` at the latest."""
    makers = select(ApiKey.expires_at).where(ApiKey.id == maker).scalar_subquery()
    expires_at = func.least(makers, None if days is None else func.now() + timedelta(days=days))  # `least` ignores NULL
    values = {"user": user, "name": name, "scope": scope, "prefix": prefix, "sha256": sha256, "expires_at": expires_at}
    statement = insert(ApiKey).values(**values, made_by=maker).on_conflict_do_nothing()
    return session.scalar(statement.returning(ApiKey))


def keys(session: Session, user: str, *, valid: bool | None = None, scope: Scope | None = None) -> list[ApiKey]:
    """Return keys of a user, newest first. `valid`: neither revoked nor expired; None: all."""
    query = select(ApiKey).where(ApiKey.user == user)
    if valid is not None:
        query = query.where(_valid() if valid else ~_valid())
    if scope is not None:
        query = query.where(ApiKey.scope == scope)
    return list(session.scalars(query.order_by(ApiKey.created_at.desc())))


def count_valid(session: Session, user: str) -> int:
    """Return the number of keys of a user that are neither revoked nor expired."""
    return session.scalar(select(func.count()).where(ApiKey.user == user, _valid())) or 0


def _valid() -> ColumnElement[bool]:
    """A key is neither revoked nor expired."""
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))


def key(session: Session, id: UUID) -> ApiKey | None:
    """Return a key by its id, or None."""
    return session.get(ApiKey, id)


def key_of(session: Session, sha256: bytes) -> ApiKey | None:
    """Return a key by its hash, valid or not, or None."""
    return session.scalar(select(ApiKey).where(ApiKey.sha256 == sha256))


def revoke(session: Session, key: ApiKey) -> None:
    """Revoke a key."""
    _revoke(session, ApiKey.id == key.id)
    session.refresh(key)


def revoke_descendants(session: Session, key: ApiKey, user: str | None) -> list[UUID]:
    """Revoke the valid keys that a key made, that those made, and so on. Return their ids. `user`: only keys of this
    user, None: of all."""
    found = select(ApiKey.id).where(ApiKey.made_by == key.id).cte(recursive=True)
    found = found.union(select(ApiKey.id).join(found, ApiKey.made_by == found.c.id))
    owned = true() if user is None else ApiKey.user == user
    return _revoke(session, ApiKey.id.in_(select(found.c.id)) & owned)


def _revoke(session: Session, which: ColumnElement[bool]) -> list[UUID]:
    statement = update(ApiKey).where(which, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
    options = {"synchronize_session": False}
    return list(session.scalars(statement.returning(ApiKey.id).execution_options(**options)))


def role(session: Session, project: str, user: str) -> Role | None:
    """Return the role of a user in a project, or None."""
    return session.scalar(select(Membership.role).where(Membership.project == project, Membership.user == user))
