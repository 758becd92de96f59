"""Rules over the entropy of the policy. Both compare with the first step, whose rollouts precede every update: a later
reference would contain the damage of a collapse or an explosion within the first steps.
"""

from collections.abc import Sequence

from calibrl_core.health.rule import BACK, Rule, RuleFinding


class EntropyCollapse(Rule):
    name = "entropy_collapse"
    title = "Entropy collapse"
    about = "The policy is certain of nearly every token: the rollouts of a group agree, and exploration ends."
    reads = ("exploration/entropy",)
    from_first_step = True
    suggestion = "Lower optimizer.lr, raise algorithm.clip_high, or set algorithm.entropy_coef."

    def _window(self) -> int:
        return self._settings.entropy_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = max(self._settings.entropy_low, self._settings.entropy_fall * reference[0])
        return RuleFinding(
            means[0] < limit, means[0] > BACK * limit, _entropy(means[0], reference[0], self._window(), limit)
        )


class EntropyExplosion(Rule):
    name = "entropy_explosion"
    title = "Entropy explosion"
    about = "The policy drifts into noise: entropy is a multiple of that of the first step."
    reads = ("exploration/entropy",)
    from_first_step = True
    suggestion = "Lower optimizer.lr or algorithm.entropy_coef, and restart from the best checkpoint. Read some groups."

    def _window(self) -> int:
        return self._settings.entropy_steps

    def _judge(self, means: Sequence[float], reference: Sequence[float]) -> RuleFinding:
        limit = max(self._settings.entropy_high, self._settings.entropy_rise * reference[0])
        return RuleFinding(
            means[0] > limit, means[0] < limit / BACK, _entropy(means[0], reference[0], self._window(), limit)
        )


def _entropy(current: float, first: float, steps: int, limit: float) -> str:
    return (
        f"mean entropy of the last {steps} steps: {current:.3g} nats per token; first step: {first:.3g} "
        f"(limit {limit:.3g})"
    )
