"""The panels of a job's page. Each module of this folder names its own in `PANELS`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from calibrl.schemas import Job, JobKind
from dashboard import panels
from dashboard.panels.common import has_rollouts


@dataclass(frozen=True)
class Panel:
    """A part of a job's page.

    `place`: panels are in ascending order of it. `kinds`: of jobs that have the panel; empty: all. `of_rollouts`: only
    for jobs that sample completions. `charted`: the reader chooses how its curves are drawn.
    """

    title: str
    draw: Callable[[Job], None]
    place: int
    kinds: tuple[JobKind, ...] = ("train",)
    of_rollouts: bool = False
    charted: bool = False


@cache
def _all() -> tuple[Panel, ...]:
    modules = [import_module(f"{panels.__name__}.{found.name}") for found in iter_modules(panels.__path__)]
    found = (panel for module in modules for panel in getattr(module, "PANELS", ()))
    return tuple(sorted(found, key=lambda panel: panel.place))


def panels_of(job: Job) -> dict[str, Panel]:
    """Return the built-in panels of a job, by title."""
    return {
        panel.title: panel
        for panel in _all()
        if (not panel.kinds or job.kind in panel.kinds) and (not panel.of_rollouts or has_rollouts(job))
    }
