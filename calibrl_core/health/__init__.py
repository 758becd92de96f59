"""Health rules: detect problems in the metrics of a run, explain them and suggest a fix.

A rule judges the last few steps together, so that a single outlier has no effect. It fires once when its measure passes
the limit. It clears once when the measure is back within the limit by the factor `BACK`. Between the two its state does
not change, so that it does not flicker. Alerts are advice; only the rules in `pause_on` and those that always pause
(`NoVerdicts`) pause the job.

To add a rule: add a class to the file of its subject, its name to `RuleName`, its limits to `HealthSettings`, and the
class to `RULES`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from calibrl_core.health.entropy import EntropyCollapse, EntropyExplosion
from calibrl_core.health.expert import ExpertDrift
from calibrl_core.health.image import IgnoresImage
from calibrl_core.health.learning import NoAdvantage, RewardNotAccuracy
from calibrl_core.health.length import AllTruncated, LengthExplosion
from calibrl_core.health.rule import Alert, Rule
from calibrl_core.health.settings import HealthSettings
from calibrl_core.health.update import GradientSpikes, SamplerMismatch
from calibrl_core.health.validation import Overfitting
from calibrl_core.health.verifiers import NoVerdicts, VerifierFailures

RULES: tuple[type[Rule], ...] = (
    *(EntropyCollapse, EntropyExplosion, AllTruncated, NoAdvantage, RewardNotAccuracy),
    *(VerifierFailures, NoVerdicts, LengthExplosion, GradientSpikes, SamplerMismatch, ExpertDrift, Overfitting),
    IgnoresImage,
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
