"""Metric families of other installed packages: entry points of the group `calibrl.metrics`.

An entry point's name is the family's name, its value a function `(batch: StepBatch) -> dict[str, float]`. The family
`letters` returns metrics named `letters/...`. It runs in the trainer, once per step, in the first process. Their
descriptions, if there are any: `calibrl_core.metrics.installed`.
"""

import logging
import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint

from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.metrics.installed import GROUP
from calibrl_core.plugins import ExtensionError, load, package

NAME = re.compile(r"[A-Za-z0-9_]{1,50}/[A-Za-z0-9_/.-]{1,100}")  # of a metric

log = logging.getLogger(__name__)


class InstalledFamily:
    """A family from another package. Its mistakes never end a run: they are logged once and leave its metrics out."""

    def __init__(self, point: EntryPoint) -> None:
        """Load the function.

        Raises:
            ExtensionError: the entry point does not name a function.
        """
        self._function: Callable[[StepBatch], dict[str, float]] = point.load()
        if not callable(self._function):
            raise ExtensionError(f"{point.value} must be a function of one StepBatch")
        self._family, self._package = point.name, package(point)
        self._reported = False

    def __call__(self, batch: StepBatch) -> dict[str, float]:
        """Return the family's metrics by `family/name`; nothing if its code fails or a name is wrong."""
        try:
            values = {str(name): float(value) for name, value in self._function(batch).items()}
            for name in values:
                if not (name.startswith(f"{self._family}/") and NAME.fullmatch(name)):
                    raise ExtensionError(f"the metric {name!r} must be named {self._family}/ and letters, digits, _")
        except Exception as error:  # of code that is not ours: any may come
            if not self._reported:
                log.error(
                    "The package %s: metric family %r failed; its metrics are left out: %s: %s",
                    self._package,
                    self._family,
                    type(error).__name__,
                    error,
                )
            self._reported = True
            return {}
        return values


@cache
def installed_families() -> tuple[InstalledFamily, ...]:
    """Return the families of all installed packages, sorted by name."""
    return tuple(load(GROUP, InstalledFamily).values())
