"""Rules over the distance between policy and experts."""

from collections.abc import Sequence

from calibrl_core.health.rule import BACK, Rule, RuleFinding


class ExpertDrift(Rule):
    """The reference is the window in which the experts were most likely. A policy that finds its own words for right
    answers moves away from the experts too, so a rise of accuracy keeps the rule silent.
    """

    name = "expert_drift"
    title = "Expert drift"
    about = "The policy moves away from the experts, and no more answers are right: guidance says ever less."
    reads = ("expert/nll", "reward/strict_accuracy")
    suggestion = (
        "Lower optimizer.lr, raise algorithm.guidance_coef or add algorithm.kl_coef, and restart from the checkpoint "
        "before the rise. Check the experts with an audit job."
    )

    def _window(self) -> int:
        return self._settings.expert_steps

    def _compare_with(self, before: list[float] | None, means: list[float]) -> list[float]:
        return means if before is None or means[0] <= before[0] else before

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = max(self._settings.expert_high, self._settings.expert_rise * reference[0])
        gain, enough_gain = means[1] - reference[1], self._settings.drift_accuracy
        message = (
            f"means of the last {self._window()} steps: negative log-likelihood of the experts {means[0]:.3g} nats per "
            f"token, strict accuracy {means[1]:.3g}; when the experts were most likely: {reference[0]:.3g} and "
            f"{reference[1]:.3g} (limit {limit:.3g} nats per token)"
        )
        return RuleFinding(
            bad=means[0] > limit and gain < enough_gain,
            good=means[0] - reference[0] < (limit - reference[0]) / BACK or gain > enough_gain * BACK,
            message=message,
        )
