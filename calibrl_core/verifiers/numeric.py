"""Answer reward: the `<answer>` is one number, within a tolerance of the truth."""

import re
from fractions import Fraction
from math import floor, isfinite
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from calibrl_core.verifiers.base import NO_ANSWER, AnswerVerifier, Decision, Deferred, final_answer
from calibrl_core.verifiers.expressions import prepare, value_of
from calibrl_core.verifiers.notation import LONGEST, strip_decoration
from calibrl_core.verifiers.quantities import Quantity, quantities_agree, read_quantity, split_unit

# A number with roots, powers and fractions, such as 25\\pi.
_EXPRESSION = re.compile(r"(?=.*\d|.*\\pi)(?:\d|[-+*/^().{}! ]|\\(?:sqrt|frac|pi|times|cdot|div)(?![A-Za-z]))+")
_NAMED = re.compile(r"\A[A-Za-z\\][\w\\{}]* ?(?:=|\\approx) ?")  # x =, at the start


class NumericReward(AnswerVerifier):
    """1.0 if |answer - truth| <= absolute_tolerance, or <= relative_tolerance * |truth|, or with `decimals` if both are
    equal when rounded; else 0.0.

    Accepts thousands separators, fractions, powers of ten, a leading `x =` and a unit. A unit may be missing on one
    side; two different ones are wrong, and none is converted. 50% is 0.5, or 50. An answer with several numbers, or
    with a number among other text, is wrong. Every answer is wrong if the truth is not a number.
    """

    type: Literal["numeric"] = "numeric"
    absolute_tolerance: float = Field(
        0.0, ge=0, description="Maximum difference from the reference answer, in its unit."
    )
    relative_tolerance: float = Field(
        1e-3, ge=0, lt=1, description="Maximum difference from the reference answer, as a share of it."
    )

    decimals: int | None = Field(
        None,
        ge=0,
        le=12,
        description="Decimal places to which both numbers are rounded before they are compared, in place of the "
        "tolerances; halves are rounded away from 0. None: compare by the tolerances.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        defaults = (self._default("absolute_tolerance"), self._default("relative_tolerance"))
        if self.decimals is not None and (self.absolute_tolerance, self.relative_tolerance) != defaults:
            raise ValueError("decimals: set either decimals or tolerances")
        return self

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.model_fields[name].default

    def decide(self, completion: str, truth: str) -> Decision:
        answer = final_answer(completion, self.answer_in)
        if answer is None or max(len(answer), len(truth)) > LONGEST:
            return Decision(0.0, NO_ANSWER)
        given, right = (without_name(strip_decoration(text)) for text in (answer, truth))
        quantity, expected = read_quantity(given, doubtful=True), read_quantity(right, doubtful=True)
        if quantity is not None and expected is not None:
            return Decision(float(quantities_agree(quantity, expected, self._near)), "numbers and units are compared")
        readable = all(_EXPRESSION.fullmatch(split_unit(text, doubtful=True)[0]) for text in (given, right))
        if readable:
            return Decision(Deferred(given, right), "the values of expressions are compared")
        return Decision(0.0, "one of the texts is not one number")

    def judge(self, text: str, truth: str) -> float:
        quantity, expected = _value(text), _value(truth)
        return float(quantity is not None and expected is not None and quantities_agree(quantity, expected, self._near))

    def prepare(self) -> None:
        prepare()

    def _near(self, answer: Fraction, truth: Fraction) -> bool:
        if self.decimals is not None:
            return _rounded(answer, self.decimals) == _rounded(truth, self.decimals)
        difference = abs(answer - truth)
        return difference <= self.absolute_tolerance or difference <= Fraction(self.relative_tolerance) * abs(truth)


def without_name(text: str) -> str:
    """Return an undecorated text without `x =` at its start."""
    return _NAMED.sub("", text)


def _rounded(number: Fraction, decimals: int) -> int:
    """Return a number in units of its last decimal place."""
    whole: int = floor(abs(number) * 10**decimals + Fraction(1, 2))
    return whole if number >= 0 else -whole


def _value(text: str) -> Quantity | None:
    """Return the value of an expression with a unit, or None if it is not one finite number."""
    number, unit = split_unit(text, doubtful=True)
    value = value_of(number)
    return None if value is None or not isfinite(value) else Quantity(Fraction(value), unit)
