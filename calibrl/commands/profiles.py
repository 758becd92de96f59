"""Commands of profiles: named services."""

import getpass
import re
import sys
from importlib.metadata import version as version_of
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.table import Table

from calibrl.client import Client, profiles
from calibrl.client.address import checked_key, http_address
from calibrl.commands.arguments import HERE, AsJson, print_json, print_rich

app = typer.Typer(help="Named services: list, add, remove.", invoke_without_command=True)
STARTERS = frozenset({"up", "demo", "down", "status"})  # commands of the service on this machine
Name = Annotated[str, typer.Argument(metavar="NAME")]


def install(parent: typer.Typer) -> None:
    """Add the commands, and the options of `calibrl` itself."""
    parent.callback()(choose)
    parent.add_typer(app, name="profiles", rich_help_panel=HERE)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"calibrl {version_of('calibrl')}")
        raise typer.Exit


def choose(
    context: typer.Context,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use this service, one of `calibrl profiles`.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if profile is not None and context.invoked_subcommand in STARTERS:
        raise typer.BadParameter(
            f"`calibrl {context.invoked_subcommand}` is about the service on this machine: remove the option",
            param_hint="--profile",
        )
    token = profiles.chosen.set(profile)
    context.call_on_close(lambda: profiles.chosen.reset(token))


@app.callback()
def list_profiles(context: typer.Context, as_json: AsJson = False) -> None:
    """Named services: list, add, remove. Keys are never shown."""
    if context.invoked_subcommand is not None:
        return
    addresses = {name: profile.url for name, profile in sorted(profiles.read_all().items())}
    if as_json:
        print_json(addresses)
        return
    table = Table.grid(padding=(0, 2))
    for name, url in addresses.items():
        table.add_row(name, url)
    print_rich(table if addresses else "There are no profiles yet. Create one: `calibrl profiles add NAME --url URL`.")


@app.command()
def add(
    name: Name,
    url: Annotated[str, typer.Option(metavar="URL", help="URL of the service: https://calibrl.example.com")],
    check: Annotated[bool, typer.Option(help="Ask the service whether it accepts the key.")] = True,
) -> None:
    """Save the URL of a service and your key. The key is typed at a prompt, or read from standard input."""
    if not re.fullmatch(profiles.NAME, name):
        raise typer.BadParameter("letters, digits, - and _; at most 63", param_hint="NAME")
    address = str(http_address(url)).rstrip("/")
    profiles.read_all()  # before anything is asked
    key = getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise typer.BadParameter("no key was given: pipe it in, or type it at the prompt", param_hint="key")
    one = profiles.Profile(url=address, api_key=SecretStr(checked_key(key.strip(), "give it as it was shown")))
    if check:
        with Client(address, one.api_key.get_secret_value()) as client:
            user = client.me().user
    with profiles.changing() as known:
        done = "changed" if name in known else "added"
        known[name] = one
    print_rich(f"{done} {name}: `calibrl --profile {name} jobs` uses {address}{f' as {user}' if check else ''}")


@app.command()
def remove(name: Name) -> None:
    """Remove a service and its key from the profiles."""
    with profiles.changing() as known:
        if known.pop(name, None) is None:
            names = f"the profiles are {', '.join(sorted(known))}" if known else "there are none"
            raise typer.BadParameter(f"there is no profile {name!r}; {names}", param_hint="NAME")
    print_rich(f"removed {name}; its key stays valid until it is revoked")
