"""Base of the rules that find a reward that rises while accuracy falls."""

from collections.abc import Sequence

from calibrl_core.health.rule import BACK, Rule


class RewardDrift(Rule):
    """Rule whose first three values are the mean reward, its standard deviation, and an accuracy.

    The reference is the window with the best accuracy, so that the rule keeps firing after both have levelled off.
    """

    def _compare_with(self, before: list[float] | None, means: list[float]) -> list[float]:
        return means if before is None or means[2] >= before[2] else before

    def _drifts(self, means: Sequence[float], reference: Sequence[float]) -> tuple[bool, bool]:
        """Return if the reward has risen and the accuracy has fallen, and if that is over."""
        rise, fall = means[0] - reference[0], reference[2] - means[2]
        enough_rise, enough_fall = self._settings.drift_reward * reference[1], self._settings.drift_accuracy
        bad = rise > enough_rise and fall > enough_fall
        return bad, rise < enough_rise / BACK or fall < enough_fall / BACK
