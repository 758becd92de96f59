"""Rules over what the policy learns: advantages, reward and accuracy."""

from collections.abc import Sequence

from calibrl_core.health.drift import RewardDrift
from calibrl_core.health.rule import Rule, RuleFinding


class NoAdvantage(Rule):
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

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        active = sum(share > 0 for share, _ in self._recent)
        message = (
            f"rewards differed within a group in {active} of the last {self._window()} steps "
            f"(mean reward {means[1]:.3g})"
            if active
            else f"no learning signal: rewards were equal within each group for {self._window()} steps "
            f"(mean {means[1]:.3g})"
        )
        return RuleFinding(active == 0, active > self._window() / 2, message)


class RewardNotAccuracy(RewardDrift):
    name = "reward_not_accuracy"
    title = "Reward without accuracy"
    about = "The reward rises while accuracy falls: reward hacking of one of its terms."
    reads = ("reward/mean", "reward/std", "reward/strict_accuracy")
    suggestion = "Read some groups to find the reward term that is exploited. Lower its weight or fix its verifier."

    def _window(self) -> int:
        return self._settings.drift_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        bad, good = self._drifts(means, reference)
        message = (
            f"means of the last {self._window()} steps: strict accuracy {means[2]:.3g}, reward {means[0]:.3g}; "
            f"when strict accuracy was best: {reference[2]:.3g} and {reference[0]:.3g}"
        )
        return RuleFinding(bad, good, message)
