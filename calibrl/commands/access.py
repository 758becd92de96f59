"""Commands of access: me, keys, users, members."""

from typing import Annotated
from uuid import UUID

import typer

from calibrl.client import Client
from calibrl.client.lookup import find, is_id
from calibrl.commands import completion
from calibrl.commands.arguments import ACCESS, AsJson, Moment, StackFolder, moment, print_json, print_rich
from calibrl.schemas import ApiKey, NewKey, Page, Role, Scope
from calibrl.views import terminal
from calibrl.views.messages import audit_table

keys = typer.Typer(help="API keys: list, create, revoke.", no_args_is_help=True)
users = typer.Typer(help="Users: list, add, change. Requires an admin.", no_args_is_help=True)
members = typer.Typer(help="Members of a project: list, put, remove.", no_args_is_help=True)

Project = Annotated[str, typer.Argument(metavar="PROJECT", autocompletion=completion.projects)]
UserName = Annotated[str, typer.Argument(metavar="USER")]


def install(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("me", rich_help_panel=ACCESS)(me)
    app.add_typer(keys, name="keys", rich_help_panel=ACCESS)
    app.add_typer(users, name="users", rich_help_panel=ACCESS)
    app.add_typer(members, name="members", rich_help_panel=ACCESS)
    app.command("audit-log", rich_help_panel=ACCESS)(show_audit_log)


def me(data: StackFolder = None, as_json: AsJson = False) -> None:
    """Show the user of the key and its permissions."""
    with Client(data_dir=data) as client:
        caller = client.me()
    if as_json:
        print_json(caller)
        return
    roles = ", ".join(f"{role} of {project}" for project, role in caller.projects.items()) or "member of no project"
    rights = "an admin of the service" if caller.admin else roles
    print_rich(f"{caller.user}: {rights}; scope of this key: {caller.scope}")


@keys.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="Keys of another user. Requires an admin.")] = None,
    valid: Annotated[
        bool | None, typer.Option("--valid/--invalid", help="Only keys that are accepted, or only others.")
    ] = None,
    data: StackFolder = None,
    as_json: AsJson = False,
) -> None:
    """List your keys, newest first."""
    with Client(data_dir=data) as client:
        key_rows = client.keys(user, valid=valid)
    print_json(key_rows) if as_json else print_rich(terminal.keys_table(key_rows))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Purpose of the key.")],
    scope: Annotated[str, typer.Option(metavar="read|write", help="read: the key cannot change anything.")] = "write",
    days: Annotated[float | None, typer.Option(help="Days until the key expires.", show_default="never")] = None,
    user: Annotated[str | None, typer.Option(help="Create the key for another user. Requires an admin.")] = None,
    data: StackFolder = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It cannot be shown again."""
    if scope not in ("read", "write"):
        raise typer.BadParameter("must be read or write", param_hint="--scope")
    chosen: Scope = "read" if scope == "read" else "write"
    with Client(data_dir=data) as client:
        key = client.create_key(NewKey(name=name, scope=chosen, expires_days=days, user=user))
    print_json(key) if as_json else typer.echo(key.key)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, the beginning of the id, or its name.")],
    descendants: Annotated[bool, typer.Option("--descendants", help="Also the keys that this key created.")] = False,
    data: StackFolder = None,
) -> None:
    """Revoke a key. The service refuses it from now on."""
    with Client(data_dir=data) as client:
        id = key if is_id(key) else _own_key(client, key)
        revoked = client.revoke_key(id, descendants=descendants)
    print_rich(f"revoked {revoked.name} of {revoked.user}")


def _own_key(client: Client, text: str) -> UUID:
    own = client.keys()
    valid = Page[ApiKey](data=[key for key in own if key.revoked_at is None], has_more=False)
    return find(text, "valid key of yours", lambda _: valid).id


@users.command("list")
def list_users(
    text: Annotated[
        str | None, typer.Option("--search", "-q", metavar="TEXT", help="Only users with this text in the name.")
    ] = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Only users whose keys are accepted, or only others.")
    ] = None,
    data: StackFolder = None,
    as_json: AsJson = False,
) -> None:
    """List users."""
    with Client(data_dir=data) as client:
        user_rows = client.users(q=text, active=active)
    print_json(user_rows) if as_json else print_rich(terminal.users_table(user_rows))


@users.command("add")
def add_user(
    name: UserName,
    admin: Annotated[
        bool, typer.Option("--admin", help="Make the user an admin of the service, with all permissions.")
    ] = False,
    data: StackFolder = None,
) -> None:
    """Add a user with a first key and print the key. It cannot be shown again."""
    with Client(data_dir=data) as client:
        client.add_user(name, admin=admin)
        typer.echo(client.create_key(NewKey(name="first key", user=name)).key)


@users.command("change")
def change_user(
    name: UserName,
    admin: Annotated[bool | None, typer.Option("--admin/--no-admin")] = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="The service refuses all keys of an inactive user.")
    ] = None,
    data: StackFolder = None,
) -> None:
    """Change whether a user is an admin or active."""
    with Client(data_dir=data) as client:
        user = client.change_user(name, admin=admin, active=active)
    print_rich(f"{user.name}: {'admin' if user.admin else 'no admin'}, {'active' if user.active else 'inactive'}")


@users.command("remove")
def remove_user(name: UserName, data: StackFolder = None) -> None:
    """Remove a user with all keys and roles. The jobs stay."""
    with Client(data_dir=data) as client:
        client.remove_user(name)
    print_rich(f"removed {name}")


def show_audit_log(
    project: Annotated[
        str | None,
        typer.Option(metavar="SLUG", autocompletion=completion.projects, help="Only changes in this project."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only changes by this user.")] = None,
    action: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only changes with this text in method and route: DELETE")
    ] = None,
    since: Annotated[
        Moment, typer.Option(parser=moment, metavar="TIME", help="Only changes at this time or later.")
    ] = None,
    until: Annotated[Moment, typer.Option(parser=moment, metavar="TIME", help="Only changes before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of entries.")] = 100,
    data: StackFolder = None,
    as_json: AsJson = False,
) -> None:
    """List who changed what, newest first. Requires an admin; with --project, an admin of the project."""
    with Client(data_dir=data) as client:
        entries = client.audit(
            project=project, user=user, action=action, created_after=since, created_before=until, limit=limit
        )
    print_json(entries) if as_json else print_rich(audit_table(entries) if entries else "No changes.")


@members.command("list")
def list_members(project: Project, data: StackFolder = None, as_json: AsJson = False) -> None:
    """List the members of a project with their roles."""
    with Client(data_dir=data) as client:
        member_rows = client.members(project)
    print_json(member_rows) if as_json else print_rich(terminal.members_table(member_rows))


@members.command("put")
def put_member(
    project: Project,
    user: UserName,
    role: Annotated[Role, typer.Argument(metavar="viewer|member|admin")],
    data: StackFolder = None,
) -> None:
    """Give a user a role in a project."""
    with Client(data_dir=data) as client:
        member = client.put_member(project, user, role)
    print_rich(f"{member.user} is {member.role} of {project}")


@members.command("remove")
def remove_member(project: Project, user: UserName, data: StackFolder = None) -> None:
    """Remove a user from a project."""
    with Client(data_dir=data) as client:
        client.remove_member(project, user)
    print_rich(f"{user} no longer belongs to {project}")
