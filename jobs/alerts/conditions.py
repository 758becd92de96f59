"""Conditions of alert rules on the values of a metric."""

import math

from calibrl.schemas.alert_rules import LimitCondition, MetricCondition, NotFiniteCondition, WorseThanBestCondition


class ConditionWatch:
    """The values of a metric in one job, as far as a condition needs them.

    A condition holds if each of its last `steps` values is bad, and is over if each of them is good. Between the two
    its state does not change, so that it does not flicker.
    """

    def __init__(self, condition: MetricCondition) -> None:
        self._condition = condition
        self._steps = 1 if isinstance(condition, NotFiniteCondition) else condition.steps
        self._in_a_row = 0  # bad values in a row; below 0: good ones
        self._best: tuple[float, int] | None = None  # value and step
        self._text = ""

    @property
    def remembered(self) -> int | None:
        """Number of earlier values that decide the next finding; None: all."""
        return None if isinstance(self._condition, WorseThanBestCondition) else self._steps

    def observe(self, step: int, value: float) -> bool | None:
        """Record the value at a step. Return True if the condition holds, False if it is over, None if neither."""
        bad = self._judge(step, value)
        if bad is None:
            return None
        self._in_a_row = max(self._in_a_row, 0) + 1 if bad else min(self._in_a_row, 0) - 1
        return bad if abs(self._in_a_row) >= self._steps else None

    def text(self, fired: bool) -> str:
        """Return what the last values were, for people."""
        length = f" for {self._steps} values in a row" if self._steps > 1 else ""
        match self._condition:
            case NotFiniteCondition(metric=metric):
                return f"{metric} is {self._text}"
            case LimitCondition(type=side, metric=metric, limit=limit):
                return f"{metric} was {'' if fired else 'not '}{side} {limit:g}{length} (last value {self._text})"
            case WorseThanBestCondition(metric=metric, by=by):
                verb = "was" if fired else "was not"
                return f"{metric} {verb} worse than its best value by more than {by:g}{length} ({self._text})"

    def _judge(self, step: int, value: float) -> bool | None:
        self._text = f"{value:.4g}"
        if isinstance(self._condition, NotFiniteCondition):
            return not math.isfinite(value)
        if math.isnan(value):
            return None
        if isinstance(self._condition, LimitCondition):
            limit = self._condition.limit
            return value < limit if self._condition.type == "below" else value > limit
        return self._is_worse(step, value, self._condition)

    def _is_worse(self, step: int, value: float, condition: WorseThanBestCondition) -> bool:
        sign = 1 if condition.best == "highest" else -1
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, step)
        best, at = self._best
        self._text = f"last value {value:.4g}, best {best:.4g} at step {at}"
        return sign * (best - value) > condition.by
