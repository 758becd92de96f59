"""Rules over validation during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from calibrl_core.health.drift import RewardDrift
from calibrl_core.health.rule import RuleFinding
from calibrl_core.health.settings import HealthSettings


class Overfitting(RewardDrift):
    """A step with a validation has the means of the reward over all steps since the validation before. Of many
    validations the best is partly luck, so the 95 % intervals must not overlap.
    """

    name = "overfitting"
    title = "Overfitting"
    about = "The training reward rises while validation accuracy falls: the policy learns the training data by heart."
    reads = (
        *("reward/mean", "reward/std"),
        *("validation/accuracy", "validation/accuracy_low", "validation/accuracy_high"),
    )
    suggestion = (
        "Use the best checkpoint (best_checkpoint in the result). For the next run: more data, fewer epochs, a lower "
        "optimizer.lr, or algorithm.kl_coef."
    )

    def __init__(self, settings: HealthSettings, state: Mapping[str, Any]) -> None:
        super().__init__(settings, state)
        self._training: list[float] = state.get("training", [0, 0.0, 0.0])  # steps; sums of reward and its deviation

    def state(self) -> dict[str, Any]:
        """Return the state of all rules, and the sums since the last validation."""
        return super().state() | {"training": self._training}

    def _window(self) -> int:
        return self._settings.overfit_validations

    def _values(self, metrics: Mapping[str, float]) -> list[float]:
        reward, deviation, *validation = super()._values(metrics)
        if math.isfinite(reward) and math.isfinite(deviation):
            self._training = [
                total + value for total, value in zip(self._training, (1, reward, deviation), strict=True)
            ]
        steps, *sums = self._training
        if not steps or not all(map(math.isfinite, validation)):
            return [math.nan]
        self._training = [0, 0.0, 0.0]
        return [*(total / steps for total in sums), *validation]

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        bad, good = self._drifts(means, reference)
        message = (
            f"means of the last {self._window()} validations: accuracy {means[2]:.3g} (95 % interval up to "
            f"{means[4]:.3g}), training reward {means[0]:.3g}; when accuracy was best: {reference[2]:.3g} (from "
            f"{reference[3]:.3g}) and {reference[0]:.3g}"
        )
        return RuleFinding(bad and means[4] < reference[3], good, message)
