"""Extensions from other installed packages: entry points of the groups `calibrl.algorithms`, `calibrl.metrics`,
`calibrl.panels`. Verifiers (`calibrl.verifiers`) are loaded in worker processes only: `calibrl_core.verifiers.plugin`.

A broken extension stops nothing: it is left out, and one sentence that names its package goes to the log.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

T = TypeVar("T")
HEAVY = ("torch", "transformers")  # the service must not load them

log = logging.getLogger(__name__)


class ExtensionError(ValueError):
    """An extension that cannot be used; the message continues "... cannot be used: "."""


def load(group: str, accept: Callable[[EntryPoint], T], *, light: bool = False) -> dict[str, T]:
    """Return what `accept` makes of each installed entry point of `group`, by its name, sorted by name.

    An entry point that `accept` refuses (by any exception) and a name that is installed twice are left out.
    `light`: also log a sentence if loading imports torch or transformers into a process that did without.
    """
    extensions: dict[str, T] = {}
    for name, point, twin in _installed(group):
        before = {module for module in HEAVY if module in sys.modules}
        try:
            if twin is not None:
                raise ExtensionError(f"{package(twin)} has one of the same name; uninstall one of the two")
            extensions[name] = accept(point)
        except Exception as error:  # of code that is not ours: any may come
            reason = str(error) if isinstance(error, ExtensionError) else f"{type(error).__name__}: {error}"
            log.error("The package %s: %s %r cannot be used: %s", package(point), group, name, reason)
        heavy = [module for module in HEAVY if module in sys.modules and module not in before]
        if light and heavy:
            log.warning(
                "The package %s: %s %r imports %s when loaded, which slows the service: import it in functions",
                package(point), group, name, " and ".join(heavy),
            )  # fmt: skip
    return extensions


def package(point: EntryPoint) -> str:
    """Return the name and version of the distribution that brings an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "of unknown name"


def _installed(group: str) -> Iterator[tuple[str, EntryPoint, EntryPoint | None]]:
    """Yield name, entry point and, for a name that several packages use, another package's entry point."""
    points = {(point.name, point.value, package(point)): point for point in entry_points(group=group)}
    for (name, _, _), point in sorted(points.items(), key=lambda item: item[0]):
        others = [other for other in points.values() if other.name == name and other is not point]
        yield name, point, others[0] if others else None
