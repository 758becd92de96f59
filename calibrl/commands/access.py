"""The commands about who may do what: me, keys, users, members."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import ACCESS, AsJson, StackFolder, print_json, print_rich
from calibrl.schemas import NewKey, Role, Scope
from calibrl.views import terminal

keys = typer.Typer(help="Keys: list, make, revoke.", no_args_is_help=True)
users = typer.Typer(help="Users, for admins: list, add, change.", no_args_is_help=True)
members = typer.Typer(help="Who belongs to a project: list, put, remove.", no_args_is_help=True)

Project = Annotated[str, typer.Argument(metavar="PROJECT")]
UserName = Annotated[str, typer.Argument(metavar="USER")]


def install(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command("me", rich_help_panel=ACCESS)(me)
    app.add_typer(keys, name="keys", rich_help_panel=ACCESS)
    app.add_typer(users, name="users", rich_help_panel=ACCESS)
    app.add_typer(members, name="members", rich_help_panel=ACCESS)


def me(data: StackFolder = None, as_json: AsJson = False) -> None:
    """Whose key is used, and what it may do."""
    with Client(data_dir=data) as client:
        found = client.me()
    if as_json:
        print_json(found)
        return
    roles = ", ".join(f"{role} of {project}" for project, role in found.projects.items()) or "no project's member"
    may = "an admin of the service" if found.admin else roles
    print_rich(f"{found.user}: {may}; this key may {found.scope}")


@keys.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="Another user's, for admins.")] = None,
    data: StackFolder = None,
    as_json: AsJson = False,
) -> None:
    """Your keys, newest first."""
    with Client(data_dir=data) as client:
        found = client.keys(user)
    print_json(found) if as_json else print_rich(terminal.keys_table(found))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[str, typer.Option(metavar="read|write", help="read: it changes nothing.")] = "write",
    days: Annotated[float | None, typer.Option(help="After which it is refused.", show_default="never")] = None,
    user: Annotated[str | None, typer.Option(help="For another user, for admins.")] = None,
    data: StackFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed this once."""
    if scope not in ("read", "write"):
        raise typer.BadParameter("read or write", param_hint="--scope")
    chosen: Scope = "read" if scope == "read" else "write"
    with Client(data_dir=data) as client:
        made = client.create_key(NewKey(name=name, scope=chosen, expires_days=days, user=user))
    print_json(made) if as_json else typer.echo(made.key)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, from `calibrl keys list`.")],
    data: StackFolder = None,
) -> None:
    """Have a key be refused from now on."""
    with Client(data_dir=data) as client:
        gone = client.revoke_key(key)
    print_rich(f"revoked {gone.name} of {gone.user}")


@users.command("list")
def list_users(data: StackFolder = None, as_json: AsJson = False) -> None:
    """Everybody who has been added."""
    with Client(data_dir=data) as client:
        found = client.users()
    print_json(found) if as_json else print_rich(terminal.users_table(found))


@users.command("add")
def add_user(
    name: UserName,
    admin: Annotated[bool, typer.Option("--admin", help="Of the service: may do everything.")] = False,
    data: StackFolder = None,
) -> None:
    """Add a user, with a first key, which is printed this once."""
    with Client(data_dir=data) as client:
        client.add_user(name, admin=admin)
        typer.echo(client.create_key(NewKey(name="first key", user=name)).key)


@users.command("change")
def change_user(
    name: UserName,
    admin: Annotated[bool | None, typer.Option("--admin/--no-admin")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Inactive: no key is accepted.")] = None,
    data: StackFolder = None,
) -> None:
    """Make a user an admin or not, active or not."""
    with Client(data_dir=data) as client:
        user = client.change_user(name, admin=admin, active=active)
    print_rich(f"{user.name}: {'admin' if user.admin else 'no admin'}, {'active' if user.active else 'inactive'}")


@members.command("list")
def list_members(project: Project, data: StackFolder = None, as_json: AsJson = False) -> None:
    """Who belongs to a project, and as what."""
    with Client(data_dir=data) as client:
        found = client.members(project)
    print_json(found) if as_json else print_rich(terminal.members_table(found))


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
    """Take a user out of a project."""
    with Client(data_dir=data) as client:
        client.remove_member(project, user)
    print_rich(f"{user} no longer belongs to {project}")
