"""Rules over the verifiers."""

from collections.abc import Sequence
from typing import Any

from calibrl_core.health.rule import BACK, Rule, RuleFinding


class VerifierFailures(Rule):
    name = "verifier_failures"
    title = "Verifier failures"
    about = "A verifier often gives no score. A missing score counts as 0, so right answers are punished."
    reads = ("reward/verifier_failure_share",)
    caused_by_update = False
    suggestion = "Read the reason in the log. Raise the verifier's time_limit_seconds, or fix it."

    def _window(self) -> int:
        return self._settings.failure_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = self._settings.failure_share
        message = f"over the last {self._window()} steps a verifier gave no score for {means[0]:.0%} of completions"
        return RuleFinding(means[0] >= limit, means[0] < limit / BACK, message)


class NoVerdicts(Rule):
    name = "no_verdicts"
    title = "No scores"
    about = "A verifier gives no score at all. The job pauses."
    reads = ("reward/verifier_failure_share",)
    caused_by_update = False
    suggestion = "Fix the verifier or remove it from rewards: the reason is in the log."
    always_pauses = True

    def state(self) -> dict[str, Any]:
        """Return the state as if the rule had not fired: a job that resumes with the same verifier pauses again."""
        return super().state() | {"firing": False}

    def _window(self) -> int:
        return self._settings.failure_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        message = f"a verifier gave no score for any completion in {self._window()} steps in a row"
        return RuleFinding(means[0] == 1, means[0] < 1, message)
