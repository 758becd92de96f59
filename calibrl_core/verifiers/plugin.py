"""Verifiers that an administrator installs: Python entry points of the group `calibrl.verifiers`.

A spec names an installed verifier, never a file or a module. Finding it only reads the metadata of installed
distributions; its code is imported in worker processes only.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pydantic import Field

from calibrl_core.verifiers.base import InputVerifier, Verifier, valid_score
from calibrl_core.verifiers.reward_input import RewardInput

GROUP = "calibrl.verifiers"


class PluginError(ValueError):
    """A verifier that is not installed or cannot be loaded; the message lists the installed ones."""


class PluginReward(InputVerifier):
    """Score of an installed verifier, 0.0 to 1.0: a callable `(seen: RewardInput) -> float`, or
    `(completion: str, truth: str) -> float`; with `batch_size`, `(seen: list[RewardInput]) -> list[float]`.
    """

    type: Literal["plugin"] = "plugin"
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name of the installed entry point."
    )
    version: str | None = Field(
        None, min_length=1, max_length=100, description="Required version of the distribution. None: any."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Maximum completions per call: the function gets a list of inputs and returns a list of scores. "
        "time_limit_seconds is then that of a completion, and a call has as many times more. None: one per call.",
    )

    @property
    def label(self) -> str:
        return f"plugin-{self.name}"

    @property
    def reads_truth(self) -> bool:
        return True  # it can: its code is not known here

    @property
    def most_together(self) -> int:
        return self.batch_size or 1

    def judge_input(self, seen: RewardInput) -> float:
        return _one_by_one(self.name, self.version)(seen)

    def judge_all(self, asked: Sequence[tuple[str, str]]) -> list[float]:
        if self.batch_size is None:
            return super().judge_all(asked)
        scores = _load(self.name, self.version)([RewardInput.from_json(text, truth) for text, truth in asked])
        if len(scores) != len(asked):
            raise ValueError(f"returned {len(scores)} scores for {len(asked)} completions")
        return [valid_score(score) for score in scores]

    def prepare(self) -> None:
        _load(self.name, self.version)


def plugin_versions(verifiers: Iterable[Verifier]) -> dict[str, str]:
    """Return the version of each plugin's distribution, by `label`. Imports none of them.

    Raises:
        PluginError: one is not installed, not in the requested version, or installed twice.
    """
    plugins = (verifier for verifier in verifiers if isinstance(verifier, PluginReward))
    return {plugin.label: _version(_find(plugin.name, plugin.version)) for plugin in plugins}


def _find(name: str, version: str | None) -> EntryPoint:
    installed = {(point.name, point.value, _version(point)): point for point in entry_points(group=GROUP)}
    named = [point for point in installed.values() if point.name == name]
    if not named:
        there_is = ", ".join(sorted({f"{point.name} {_version(point)}" for point in installed.values()})) or "none"
        raise PluginError(f"no verifier {name!r} is installed on this machine; installed: {there_is}")
    if len(named) > 1:
        owners = " and ".join(sorted(f"{point.dist.name if point.dist else '?'} {_version(point)}" for point in named))
        raise PluginError(f"the verifier {name!r} is installed twice, by {owners}: remove one")
    if version not in (None, _version(named[0])):
        raise PluginError(f"the verifier {name!r} is installed in version {_version(named[0])}, not {version}")
    return named[0]


def _version(point: EntryPoint) -> str:
    return point.dist.version if point.dist else "unknown"


@cache
def _load(name: str, version: str | None) -> Callable[..., Any]:
    verifier = _find(name, version).load()
    if not callable(verifier):
        raise PluginError(
            f"the verifier {name!r} must be a function (seen) or (completion, truth); its entry point is not callable"
        )
    return verifier  # type: ignore[no-any-return]


@cache
def _one_by_one(name: str, version: str | None) -> Callable[[RewardInput], float]:
    """Return an installed verifier as a function of the whole input, whichever of the two forms it has."""
    verifier = _load(name, version)
    if _takes_one(verifier):
        return verifier
    return lambda seen: verifier(seen.completion, seen.truth)


def _takes_one(verifier: Callable[..., float]) -> bool:
    """Return if a function has one positional parameter. A callable without a signature takes two."""
    try:
        parameters = inspect.signature(verifier).parameters.values()
    except (TypeError, ValueError):
        return False
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(places) == 1
