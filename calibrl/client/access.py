"""Users, roles, keys, and who changed what."""

from uuid import UUID

from calibrl.client.connection import MOST, Connection, path_of
from calibrl.schemas import ApiKey, AuditEntry, CreatedKey, Me, Member, NewKey, NewUser, Page, Role, User, UserChanges


class Access(Connection):
    """Users, roles, keys, and who changed what."""

    def me(self) -> Me:
        """Whose key this client has, and what it may do."""
        return self._get(Me, "/v1/me")

    def keys(self, user: str | None = None) -> list[ApiKey]:
        """Your keys, newest first; as an admin, another user's."""
        return self._get(Page[ApiKey], "/v1/keys", user=user).data

    def create_key(self, new: NewKey) -> CreatedKey:
        """Make a key; it is in this answer and never shown again."""
        return self._send("POST", CreatedKey, "/v1/keys", new)

    def revoke_key(self, id: UUID | str) -> ApiKey:
        """Have a key be refused from now on."""
        return self._parsed(ApiKey, self._delete(path_of("keys", str(id))))

    def users(self) -> list[User]:
        """Users by name, at most a thousand; for admins."""
        return self._get(Page[User], "/v1/users", limit=MOST).data

    def add_user(self, name: str, *, admin: bool = False) -> User:
        """Add a user, who has no key yet; for admins. A name that is taken is refused (409)."""
        return self._send("POST", User, "/v1/users", NewUser(name=name, admin=admin))

    def change_user(self, name: str, *, admin: bool | None = None, active: bool | None = None) -> User:
        """Make a user an admin or not, active or not; for admins."""
        given = {"admin": admin, "active": active}
        changes = UserChanges(**{field: value for field, value in given.items() if value is not None})
        return self._send("PATCH", User, path_of("users", name), changes)

    def members(self, project: str) -> list[Member]:
        """Who belongs to a project, and as what."""
        return self._get(Page[Member], path_of("projects", project, "members")).data

    def put_member(self, project: str, user: str, role: Role | str) -> Member:
        """Give a user a role in a project; for its admins."""
        return self._send("PUT", Member, path_of("projects", project, "members", user), {"role": str(role)})

    def remove_member(self, project: str, user: str) -> None:
        """Take a user out of a project; for its admins."""
        self._delete(path_of("projects", project, "members", user))

    def audit(self, *, project: str | None = None, user: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """Who changed what, newest first; for admins, and with `project` for that project's."""
        return self._get(Page[AuditEntry], "/v1/audit", project=project, user=user, limit=limit).data
