"""Panels of other installed packages: entry points of the group `calibrl.panels`.

An entry point's value is a function `(job: Job) -> None` that draws with Streamlit, its name the panel's title. The
panels are on the pages of training jobs.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint

from calibrl.schemas import Job
from calibrl_core.plugins import ExtensionError, load, package
from dashboard import states
from dashboard.forms.schema import label

GROUP = "calibrl.panels"
Panel = Callable[[Job], None]

log = logging.getLogger(__name__)


@cache
def installed_panels() -> dict[str, Panel]:
    """Return the panels by title: the entry point `my_panel` is titled "My panel"."""
    return {label(name): panel for name, panel in load(GROUP, _accept).items()}


def _accept(point: EntryPoint) -> Panel:
    draw: Panel = point.load()
    if not callable(draw):
        raise ExtensionError(f"{point.value} must be a function of one Job")

    def draw_or_explain(job: Job) -> None:
        try:
            draw(job)
        except Exception as error:  # of code that is not ours: any may come
            log.exception("The package %s: panel %r failed", package(point), point.name)
            text = f"Error in the package {package(point)}: {type(error).__name__}: {error}"
            states.empty("Panel failed", text)

    return draw_or_explain
