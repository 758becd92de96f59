"""Shell completion: names that the service is asked for while the user types."""

from collections.abc import Callable

import typer

from calibrl import presets
from calibrl.client import Client, profiles
from calibrl.client.lookup import LATEST

TIMEOUT_SECONDS = 0.5  # per try
SHOWN = 30
Offered = list[tuple[str, str]]  # what can be typed, and what it is


def job_ids(context: typer.Context, incomplete: str) -> Offered:
    """Return the newest jobs whose ids begin with `incomplete`, as pairs of id and `name, status`; also `latest`."""

    def found(client: Client) -> Offered:
        return [
            (str(job.id), f"{job.name}, {job.status}") for job in client.jobs(q=incomplete or None, limit=SHOWN).data
        ]

    return _offered(context, incomplete, found, [(LATEST, "the latest job")])


def dataset_ids(context: typer.Context, incomplete: str) -> Offered:
    """Return the newest datasets whose ids begin with `incomplete`, as pairs of id and name; also `latest`."""

    def found(client: Client) -> Offered:
        return [(str(one.id), one.name) for one in client.datasets(q=incomplete or None, limit=SHOWN).data]

    return _offered(context, incomplete, found, [(LATEST, "the latest dataset")])


def projects(context: typer.Context, incomplete: str) -> Offered:
    """Return the projects of the user whose names begin with `incomplete`."""
    return _offered(context, incomplete, lambda client: [(project.slug, "") for project in client.projects()])


def preset_names(incomplete: str) -> Offered:
    """Return the presets whose names begin with `incomplete`, as pairs of name and summary."""
    return [(name, presets.summary(name)) for name in presets.names() if name.startswith(incomplete)]


def _offered(
    context: typer.Context, incomplete: str, found: Callable[[Client], Offered], always: Offered | None = None
) -> Offered:
    """Return what begins with `incomplete`. Nothing if the service does not answer: an error message would be printed
    into the command line.
    """
    profiles.chosen.set(context.find_root().params.get("profile"))
    try:
        with Client(data_dir=context.params.get("data"), timeout=TIMEOUT_SECONDS) as client:
            offered = [*(always or ()), *found(client)]
    except Exception:
        return []
    return [pair for pair in offered if pair[0].startswith(incomplete)]
