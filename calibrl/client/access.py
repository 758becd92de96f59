"""Users, roles, keys and the audit log."""

from datetime import datetime
from uuid import UUID

from calibrl.client.connection import GETS, MOST, Connection, checked, path_of
from calibrl.schemas import (
    ApiKey,
    AuditEntry,
    CreatedKey,
    CreatedSession,
    Me,
    Member,
    NewKey,
    NewUser,
    Page,
    Role,
    User,
    UserChanges,
)


class AccessRequests(Connection):
    """Users, roles, keys and the audit log."""

    def me(self) -> Me:
        """Return the user of this key and its permissions."""
        return self._get(Me, "/v1/me")

    def begin_session(self) -> CreatedSession:
        """Begin a session of a browser with this key. Its token can be used as `api_key` of a client."""
        # Without an idempotency key: the service does not store the token, and an unused session expires.
        answer = self._again(GETS, lambda: self._once("POST", "/v1/sessions"))
        return self._parsed(CreatedSession, checked(answer))

    def end_session(self) -> None:
        """End the session whose token this client has."""
        self._delete("/v1/sessions/current")

    def keys(self, user: str | None = None, *, valid: bool | None = None) -> list[ApiKey]:
        """Return your keys, newest first. Admins can ask for those of another user. `valid`: only those that are
        neither revoked nor expired, or only others.
        """
        return self._get(Page[ApiKey], "/v1/keys", user=user, valid=_flag(valid)).data

    def create_key(self, new: NewKey) -> CreatedKey:
        """Create a key. Only this answer contains its text."""
        return self._send("POST", CreatedKey, "/v1/keys", new)

    def revoke_key(self, id: UUID | str, *, descendants: bool = False) -> ApiKey:
        """Revoke a key. The service refuses it from now on. `descendants`: also the keys that it made, directly or
        through others."""
        query = "?descendants=true" if descendants else ""
        return self._parsed(ApiKey, self._delete(path_of("keys", str(id)) + query))

    def users(self, *, q: str | None = None, active: bool | None = None) -> list[User]:
        """Return up to 1000 users, by name. `q`: text in the name. For admins."""
        return self._get(Page[User], "/v1/users", q=q, active=_flag(active), limit=MOST).data

    def add_user(self, name: str, *, admin: bool = False) -> User:
        """Add a user without a key. For admins. A name in use is refused (409)."""
        return self._send("POST", User, "/v1/users", NewUser(name=name, admin=admin))

    def change_user(self, name: str, *, admin: bool | None = None, active: bool | None = None) -> User:
        """Change whether a user is an admin or active. For admins."""
        fields = {"admin": admin, "active": active}
        changes = UserChanges(**{field: value for field, value in fields.items() if value is not None})
        return self._send("PATCH", User, path_of("users", name), changes)

    def remove_user(self, name: str) -> None:
        """Remove a user with all keys and roles. For admins. The last active admin stays (409)."""
        self._delete(path_of("users", name))

    def members(self, project: str) -> list[Member]:
        """Return the members of a project with their roles."""
        return self._get(Page[Member], path_of("projects", project, "members")).data

    def put_member(self, project: str, user: str, role: Role | str) -> Member:
        """Give a user a role in a project. For admins of the project."""
        return self._send("PUT", Member, path_of("projects", project, "members", user), {"role": str(role)})

    def remove_member(self, project: str, user: str) -> None:
        """Remove a user from a project. For admins of the project."""
        self._delete(path_of("projects", project, "members", user))

    def audit(
        self,
        *,
        project: str | None = None,
        user: str | None = None,
        action: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Return the audit log, newest first. `action`: text in the method and route. For admins; with `project` also
        for admins of that project.
        """
        return self._get(
            Page[AuditEntry],
            "/v1/audit",
            project=project,
            user=user,
            action=action,
            created_after=created_after and created_after.isoformat(),
            created_before=created_before and created_before.isoformat(),
            limit=limit,
        ).data


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()
