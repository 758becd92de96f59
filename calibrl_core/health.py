"""Health rules: what a run's curves say when something goes wrong, in words and with a way out.

A rule looks at the last few steps together, so that one odd step says nothing. It fires once, when what it measures has
passed its limit, and clears once, when that has come back well within it (`BACK`): between the two it stays as it was,
so that it does not chatter. Alerts are advice; only the rules in `pause_on` pause the job.

To add a rule: a class here, its name in `RuleName`, a member of `RULES`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from calibrl_core.settings_base import Closed

RuleName = Literal["entropy_collapse", "entropy_explosion", "all_truncated", "no_advantage", "reward_not_accuracy"]

BACK = 1.5  # a rule clears once its measure is back within the limit by this factor


class HealthSettings(Closed):
    """When the health rules fire."""

    pause_on: tuple[RuleName, ...] = Field(
        (), description="Rules that pause the job when they fire, after a checkpoint."
    )
    entropy_steps: int = Field(10, ge=1, le=1000, description="Steps over which entropy is averaged.")
    entropy_low: float = Field(
        0.02, ge=0, description="Absolute threshold in nats per token. Entropy below it counts as collapsed."
    )
    entropy_fall: float = Field(
        0.1, ge=0, lt=1, description="Share of the initial entropy of the run. Entropy below it counts as collapsed."
    )
    entropy_high: float = Field(1.0, gt=0, description="Nats per token. Entropy below it never counts as exploded.")
    entropy_rise: float = Field(
        3.0, gt=1, description="Multiple of the initial entropy of the run. Entropy above it counts as exploded."
    )
    truncated_steps: int = Field(5, ge=1, le=1000, description="Steps over which truncated completions are counted.")
    truncated_share: float = Field(
        0.95, gt=0, le=1, description="Share of truncated completions at which the rule fires."
    )
    idle_steps: int = Field(10, ge=1, le=1000, description="Consecutive steps in which no group has an advantage.")
    drift_steps: int = Field(20, ge=1, le=1000, description="Steps over which reward and accuracy are averaged.")
    drift_reward: float = Field(
        0.1, ge=0, description="Rise of the reward at which the rule can fire, in standard deviations over rollouts."
    )
    drift_accuracy: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Fall of strict accuracy below its best value at which the rule can fire, as a share.",
    )


@dataclass(frozen=True)
class Alert:
    """A rule that has fired, or cleared: the fields of a `health` event."""

    rule: RuleName
    step: int  # counted from 1
    state: Literal["fired", "cleared"]
    message: str  # what was seen, in numbers
    suggestion: str  # what to do about it; empty where it has cleared


@dataclass(frozen=True)
class _Finding:
    bad: bool  # beyond the limit: fire
    good: bool  # well within it: clear
    message: str


class _Rule(ABC):
    """One rule with its memory of the last steps. A step that lacks a metric, or has one not finite, is passed over.

    Where a step chooses the groups that it learns from (dynamic sampling), all that were sampled are judged: `sampled/`
    before the name of what the rule reads.
    """

    name: ClassVar[RuleName]
    reads: ClassVar[tuple[str, ...]]
    suggestion: ClassVar[str]

    def __init__(self, settings: HealthSettings, state: Mapping[str, Any]) -> None:
        self._settings = settings
        self._recent: list[list[float]] = state.get("recent", [])  # of each step, what `reads` names
        self._reference: list[float] | None = state.get("reference")  # means of the steps to compare with
        self._firing: bool = state.get("firing", False)

    def state(self) -> dict[str, Any]:
        """What to restore the rule from, as JSON can say it."""
        return {"recent": self._recent, "reference": self._reference, "firing": self._firing}

    def observe(self, step: int, metrics: Mapping[str, float]) -> Alert | None:
        """Take a step's metrics in; the alert, where the rule fires or clears with it."""
        values = [metrics.get(f"sampled/{name}", metrics.get(name, math.nan)) for name in self.reads]
        if not all(map(math.isfinite, values)):
            return None
        self._recent = [*self._recent, values][-self._window() :]
        if len(self._recent) < self._window():
            return None
        now = [sum(column) / len(column) for column in zip(*self._recent, strict=True)]
        self._reference = self._compare_with(self._reference, now)
        found = self._judge(now, self._reference)
        if found.good if self._firing else found.bad:
            self._firing = not self._firing
            state: Literal["fired", "cleared"] = "fired" if self._firing else "cleared"
            return Alert(self.name, step, state, found.message, self.suggestion if self._firing else "")
        return None

    def _compare_with(self, before: list[float] | None, now: list[float]) -> list[float]:
        """The means that later ones are compared with: the first, unless a rule says otherwise."""
        return now if before is None else before

    @abstractmethod
    def _window(self) -> int:
        """Steps that are judged together."""

    @abstractmethod
    def _judge(self, now: Sequence[float], reference: Sequence[float]) -> _Finding:
        """`now` and `reference`: means over a window, in the order of `reads`."""


class EntropyCollapse(_Rule):
    """The policy has become certain of nearly every token: groups agree, and nothing new is tried."""

    name = "entropy_collapse"
    reads = ("exploration/entropy",)
    suggestion = "Lower optimizer.lr, raise algorithm.clip_high, or set algorithm.entropy_coef."

    def _window(self) -> int:
        return self._settings.entropy_steps

    def _judge(self, now: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = max(self._settings.entropy_low, self._settings.entropy_fall * reference[0])
        return _Finding(now[0] < limit, now[0] > BACK * limit, _entropy(now[0], reference[0], self._window(), limit))


class EntropyExplosion(_Rule):
    """The policy drifts into noise: entropy that rises many times over is no exploration."""

    name = "entropy_explosion"
    reads = ("exploration/entropy",)
    suggestion = "Lower optimizer.lr or algorithm.entropy_coef, and go back to the best checkpoint; read some groups."

    def _window(self) -> int:
        return self._settings.entropy_steps

    def _judge(self, now: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = max(self._settings.entropy_high, self._settings.entropy_rise * reference[0])
        return _Finding(now[0] > limit, now[0] < limit / BACK, _entropy(now[0], reference[0], self._window(), limit))


def _entropy(now: float, first: float, steps: int, limit: float) -> str:
    return (
        f"over the last {steps} steps the entropy was {now:.3g} nats a token; the run began with {first:.3g} "
        f"(limit {limit:.3g})"
    )


class AllTruncated(_Rule):
    """Completions do not come to an end, so that hardly any gives an answer."""

    name = "all_truncated"
    reads = ("length/truncated_share",)
    suggestion = (
        "Raise rollout.max_completion_tokens; where completions never end, warm the model up on expert traces first "
        "({type: sft})."
    )

    def _window(self) -> int:
        return self._settings.truncated_steps

    def _judge(self, now: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = self._settings.truncated_share
        message = f"over the last {self._window()} steps {now[0]:.0%} of completions were cut at the limit"
        return _Finding(now[0] >= limit, now[0] < limit / BACK, message)


class NoAdvantage(_Rule):
    """In every group all rewards are equal, step after step: no gradient, nothing is learned."""

    name = "no_advantage"
    reads = ("exploration/active_groups", "reward/mean")
    suggestion = (
        "Where no answer is ever right, warm the model up on expert traces first ({type: sft}) or ask easier "
        "questions; where all are, ask harder ones."
    )

    def _window(self) -> int:
        return self._settings.idle_steps

    def _judge(self, now: Sequence[float], reference: Sequence[float]) -> _Finding:
        active = sum(share > 0 for share, _ in self._recent)
        message = (
            f"in {active} of the last {self._window()} steps a group's rewards differed (mean reward {now[1]:.3g})"
            if active
            else f"nothing is learned: for {self._window()} steps every group's rewards were equal (mean {now[1]:.3g})"
        )
        return _Finding(active == 0, active > self._window() / 2, message)


class RewardNotAccuracy(_Rule):
    """The reward rises while right answers in the right form become fewer: some term of it is being gamed.

    Compared with the steps in which strict accuracy was best, so that it goes on firing when both have levelled off.
    """

    name = "reward_not_accuracy"
    reads = ("reward/mean", "reward/std", "reward/strict_accuracy")
    suggestion = "Read some groups: which reward term pays for something else? Lower its weight or mend its verifier."

    def _window(self) -> int:
        return self._settings.drift_steps

    def _compare_with(self, before: list[float] | None, now: list[float]) -> list[float]:
        return now if before is None or now[2] >= before[2] else before

    def _judge(self, now: Sequence[float], reference: Sequence[float]) -> _Finding:
        rise, fall = now[0] - reference[0], reference[2] - now[2]
        enough_rise, enough_fall = self._settings.drift_reward * reference[1], self._settings.drift_accuracy
        message = (
            f"over the last {self._window()} steps strict accuracy was {now[2]:.3g} and the mean reward {now[0]:.3g}; "
            f"when strict accuracy was best they were {reference[2]:.3g} and {reference[0]:.3g}"
        )
        return _Finding(
            bad=rise > enough_rise and fall > enough_fall,
            good=rise < enough_rise / BACK or fall < enough_fall / BACK,
            message=message,
        )


RULES: tuple[type[_Rule], ...] = (EntropyCollapse, EntropyExplosion, AllTruncated, NoAdvantage, RewardNotAccuracy)


class HealthMonitor:
    """All rules over one run. `state()` is JSON, for the checkpoint: a run that resumes repeats no alert."""

    def __init__(self, settings: HealthSettings, state: Mapping[str, Any] | None = None) -> None:
        self._pause_on = settings.pause_on
        self._rules = [rule(settings, (state or {}).get(rule.name, {})) for rule in RULES]

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[Alert]:
        """Take a step's metrics in (`step` counts from 1); the rules that fire or clear with it."""
        return [alert for rule in self._rules if (alert := rule.observe(step, metrics))]

    def pausing(self, alerts: Sequence[Alert]) -> Alert | None:
        """The alert that ends the run, where one does."""
        return next((one for one in alerts if one.state == "fired" and one.rule in self._pause_on), None)

    def state(self) -> dict[str, Any]:
        """What to restore it from."""
        return {rule.name: rule.state() for rule in self._rules}
