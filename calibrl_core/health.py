"""Health rules: detect problems in the metrics of a run, explain them and suggest a fix.

A rule judges the last few steps together, so that a single outlier has no effect. It fires once when its measure passes
the limit. It clears once when the measure is back within the limit by the factor `BACK`. Between the two its state does
not change, so that it does not flicker. Alerts are advice; only the rules in `pause_on` and those that always pause
(`NoVerdicts`) pause the job.

To add a rule: add a class here, its name in `RuleName`, and the class in `RULES`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from calibrl_core.settings.base import StrictSettings

RuleName = Literal[
    "entropy_collapse",
    "entropy_explosion",
    "all_truncated",
    "no_advantage",
    "reward_not_accuracy",
    "verifier_failures",
    "no_verdicts",
]

BACK = 1.5  # factor within the limit at which a rule clears


class HealthSettings(StrictSettings):
    """Thresholds of the health rules."""

    pause_on: tuple[RuleName, ...] = Field(
        (), max_length=100, description="Rules that pause the job when they fire, after a checkpoint."
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
    failure_steps: int = Field(
        2,
        ge=1,
        le=1000,
        description="Steps over which failed scores of a verifier are counted. If all fail in each of these steps, "
        "the job pauses.",
    )
    failure_share: float = Field(
        0.1, gt=0, le=1, description="Share of failed scores of a verifier at which the rule fires."
    )


@dataclass(frozen=True)
class Alert:
    """A rule that has fired or cleared: the fields of a `health` event."""

    rule: RuleName
    step: int  # counted from 1
    state: Literal["fired", "cleared"]
    message: str  # measured values and the limit
    suggestion: str  # suggested fix; empty if the rule has cleared


@dataclass(frozen=True)
class _Finding:
    bad: bool  # beyond the limit: fire the rule
    good: bool  # well within the limit: clear the rule
    message: str


class _Rule(ABC):
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

    def __init__(self, settings: HealthSettings, state: Mapping[str, Any]) -> None:
        self._settings = settings
        self._recent: list[list[float]] = state.get("recent", [])  # values of `reads` per step
        self._reference: list[float] | None = state.get("reference")  # means to compare with
        self._firing: bool = state.get("firing", False)

    def state(self) -> dict[str, Any]:
        """Return the state to restore the rule from, as JSON values."""
        return {"recent": self._recent, "reference": self._reference, "firing": self._firing}

    def observe(self, step: int, metrics: Mapping[str, float]) -> Alert | None:
        """Record the metrics of a step. Return the alert if the rule fires or clears at this step."""
        values = [metrics.get(f"sampled/{name}", metrics.get(name, math.nan)) for name in self.reads]
        if not all(map(math.isfinite, values)):
            return None
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

    def _compare_with(self, before: list[float] | None, means: list[float]) -> list[float]:
        """Return the reference means. Default: the first means of the run."""
        return means if before is None else before

    @abstractmethod
    def _window(self) -> int:
        """Return the number of steps that are judged together."""

    @abstractmethod
    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        """Judge the means over a window, `means` and `reference`, in the order of `reads`."""


class EntropyCollapse(_Rule):
    name = "entropy_collapse"
    title = "Entropy collapse"
    about = "The policy is certain of nearly every token: the rollouts of a group agree, and exploration ends."
    reads = ("exploration/entropy",)
    suggestion = "Lower optimizer.lr, raise algorithm.clip_high, or set algorithm.entropy_coef."

    def _window(self) -> int:
        return self._settings.entropy_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = max(self._settings.entropy_low, self._settings.entropy_fall * reference[0])
        return _Finding(
            means[0] < limit, means[0] > BACK * limit, _entropy(means[0], reference[0], self._window(), limit)
        )


class EntropyExplosion(_Rule):
    name = "entropy_explosion"
    title = "Entropy explosion"
    about = "The policy drifts into noise: entropy is a multiple of its initial value."
    reads = ("exploration/entropy",)
    suggestion = "Lower optimizer.lr or algorithm.entropy_coef, and restart from the best checkpoint. Read some groups."

    def _window(self) -> int:
        return self._settings.entropy_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = max(self._settings.entropy_high, self._settings.entropy_rise * reference[0])
        return _Finding(
            means[0] > limit, means[0] < limit / BACK, _entropy(means[0], reference[0], self._window(), limit)
        )


def _entropy(current: float, first: float, steps: int, limit: float) -> str:
    return (
        f"mean entropy of the last {steps} steps: {current:.3g} nats per token; start of the run: {first:.3g} "
        f"(limit {limit:.3g})"
    )


class AllTruncated(_Rule):
    name = "all_truncated"
    title = "All truncated"
    about = "Nearly all completions are truncated at the token limit, so few give an answer."
    reads = ("length/truncated_share",)
    suggestion = (
        "Raise rollout.max_completion_tokens. If completions never end, warm the model up on expert traces first "
        "({type: sft})."
    )

    def _window(self) -> int:
        return self._settings.truncated_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = self._settings.truncated_share
        message = f"over the last {self._window()} steps {means[0]:.0%} of completions were truncated"
        return _Finding(means[0] >= limit, means[0] < limit / BACK, message)


class NoAdvantage(_Rule):
    name = "no_advantage"
    title = "No advantage"
    about = "In every group all rewards are equal: no gradient, no learning."
    reads = ("exploration/active_groups", "reward/mean")
    suggestion = (
        "If no answer is right, warm the model up on expert traces first ({type: sft}) or use easier "
        "questions. If all answers are right, use harder questions."
    )

    def _window(self) -> int:
        return self._settings.idle_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        active = sum(share > 0 for share, _ in self._recent)
        message = (
            f"rewards differed within a group in {active} of the last {self._window()} steps "
            f"(mean reward {means[1]:.3g})"
            if active
            else f"no learning signal: rewards were equal within each group for {self._window()} steps "
            f"(mean {means[1]:.3g})"
        )
        return _Finding(active == 0, active > self._window() / 2, message)


class RewardNotAccuracy(_Rule):
    """The reference is the window with the best strict accuracy, so that the rule keeps firing after both have levelled
    off.
    """

    name = "reward_not_accuracy"
    title = "Reward without accuracy"
    about = "The reward rises while accuracy falls: reward hacking of one of its terms."
    reads = ("reward/mean", "reward/std", "reward/strict_accuracy")
    suggestion = "Read some groups to find the reward term that is exploited. Lower its weight or fix its verifier."

    def _window(self) -> int:
        return self._settings.drift_steps

    def _compare_with(self, before: list[float] | None, means: list[float]) -> list[float]:
        return means if before is None or means[2] >= before[2] else before

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        rise, fall = means[0] - reference[0], reference[2] - means[2]
        enough_rise, enough_fall = self._settings.drift_reward * reference[1], self._settings.drift_accuracy
        message = (
            f"means of the last {self._window()} steps: strict accuracy {means[2]:.3g}, reward {means[0]:.3g}; "
            f"when strict accuracy was best: {reference[2]:.3g} and {reference[0]:.3g}"
        )
        return _Finding(
            bad=rise > enough_rise and fall > enough_fall,
            good=rise < enough_rise / BACK or fall < enough_fall / BACK,
            message=message,
        )


class VerifierFailures(_Rule):
    name = "verifier_failures"
    title = "Verifier failures"
    about = "A verifier often gives no score. A missing score counts as 0, so right answers are punished."
    reads = ("reward/verifier_failure_share",)
    suggestion = "Read the reason in the log. Raise the verifier's time_limit_seconds, or fix it."

    def _window(self) -> int:
        return self._settings.failure_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        limit = self._settings.failure_share
        message = f"over the last {self._window()} steps a verifier gave no score for {means[0]:.0%} of completions"
        return _Finding(means[0] >= limit, means[0] < limit / BACK, message)


class NoVerdicts(_Rule):
    name = "no_verdicts"
    title = "No scores"
    about = "A verifier gives no score at all. The job pauses."
    reads = ("reward/verifier_failure_share",)
    suggestion = "Fix the verifier or remove it from rewards: the reason is in the log."
    always_pauses = True

    def state(self) -> dict[str, Any]:
        """Return the state as if the rule had not fired: a job that resumes with the same verifier pauses again."""
        return super().state() | {"firing": False}

    def _window(self) -> int:
        return self._settings.failure_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> _Finding:
        message = f"a verifier gave no score for any completion in {self._window()} steps in a row"
        return _Finding(means[0] == 1, means[0] < 1, message)


RULES: tuple[type[_Rule], ...] = (
    *(EntropyCollapse, EntropyExplosion, AllTruncated, NoAdvantage, RewardNotAccuracy),
    *(VerifierFailures, NoVerdicts),
)


class HealthMonitor:
    """All rules for one run. `state()` is JSON, stored in checkpoints, so that a resumed run repeats no alert."""

    def __init__(self, settings: HealthSettings, state: Mapping[str, Any] | None = None) -> None:
        self._pause_on = {*settings.pause_on, *(rule.name for rule in RULES if rule.always_pauses)}
        self._rules = [rule(settings, (state or {}).get(rule.name, {})) for rule in RULES]

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[Alert]:
        """Record the metrics of step `step` (from 1). Return the alerts of rules that fire or clear at this step."""
        return [alert for rule in self._rules if (alert := rule.observe(step, metrics))]

    def pausing(self, alerts: Sequence[Alert]) -> Alert | None:
        """Return the first alert that pauses the job, if there is one."""
        return next((one for one in alerts if one.state == "fired" and one.rule in self._pause_on), None)

    def state(self) -> dict[str, Any]:
        """Return the state to restore the monitor from."""
        return {rule.name: rule.state() for rule in self._rules}
