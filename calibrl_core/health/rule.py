"""The base of all health rules: its window, its reference, and when a rule fires and clears."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from calibrl_core.health.settings import HealthSettings, RuleName

BACK = 1.5  # factor within the limit at which a rule clears


@dataclass(frozen=True)
class Alert:
    """A rule that has fired or cleared: the fields of a `health` event."""

    rule: RuleName
    step: int  # counted from 1
    state: Literal["fired", "cleared"]
    message: str  # measured values and the limit
    suggestion: str  # suggested fix; empty if the rule has cleared


@dataclass(frozen=True)
class RuleFinding:
    bad: bool  # beyond the limit: fire the rule
    good: bool  # well within the limit: clear the rule
    message: str


class Rule(ABC):
    """A rule with its memory of the last steps. A step without the metric, or with a value that is not finite, is
    skipped.

    With dynamic sampling the rule uses the metrics of all sampled groups: `sampled/` before the name in `reads`.
    """

    name: ClassVar[RuleName]
    title: ClassVar[str]
    about: ClassVar[str]  # what it detects, for users
    reads: ClassVar[tuple[str, ...]]
    suggestion: ClassVar[str]
    always_pauses: ClassVar[bool] = False  # also if `pause_on` does not name the rule
    caused_by_update: ClassVar[bool] = True  # an update can be its cause, so that a bisection can find it
    from_first_step: ClassVar[bool] = False  # the reference is the first step, not the first window

    def __init__(self, settings: HealthSettings, state: Mapping[str, Any]) -> None:
        self._settings = settings
        self._recent: list[list[float]] = state.get("recent", [])  # `_values` per step
        self._reference: list[float] | None = state.get("reference")  # means to compare with
        self._firing: bool = state.get("firing", False)

    def state(self) -> dict[str, Any]:
        """Return the state to restore the rule from, as JSON values."""
        return {"recent": self._recent, "reference": self._reference, "firing": self._firing}

    def observe(self, step: int, metrics: Mapping[str, float]) -> Alert | None:
        """Record the metrics of a step. Return the alert if the rule fires or clears at this step."""
        values = self._values(metrics)
        if not all(map(math.isfinite, values)):
            return None
        if self.from_first_step and self._reference is None:
            self._reference = values
        self._recent = [*self._recent, values][-self._window() :]
        if len(self._recent) < self._window():
            return None
        means = [sum(column) / len(column) for column in zip(*self._recent, strict=True)]
        self._reference = self._compare_with(self._reference, means)
        finding = self._judge(means, self._reference)
        if finding.good if self._firing else finding.bad:
            self._firing = not self._firing
            state: Literal["fired", "cleared"] = "fired" if self._firing else "cleared"
            return Alert(self.name, step, state, finding.message, self.suggestion if self._firing else "")
        return None

    def _values(self, metrics: Mapping[str, float]) -> list[float]:
        """Return the values of a step that the rule remembers. Default: those of `reads`; NaN for a missing one."""
        return [metrics.get(f"sampled/{name}", metrics.get(name, math.nan)) for name in self.reads]

    def _compare_with(self, before: list[float] | None, means: list[float]) -> list[float]:
        """Return the reference means. Default: the first means of the run."""
        return means if before is None else before

    @abstractmethod
    def _window(self) -> int:
        """Return the number of steps that are judged together."""

    @abstractmethod
    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        """Judge the means over a window, `means` and `reference`, in the order of `_values`."""
