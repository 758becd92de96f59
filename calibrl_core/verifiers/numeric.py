"""Answer reward: the `<answer>` is one number, within a tolerance of the truth."""

import re
from fractions import Fraction
from typing import Literal

from pydantic import Field

from calibrl_core.verifiers.base import AnswerVerifier, final_answer
from calibrl_core.verifiers.notation import LONGEST, quantities_agree, read_quantity, strip_decoration

_NAMED = re.compile(r"\A[A-Za-z\\][\w\\{}]* ?(?:=|\\approx) ?")  # x =, at the start


class NumericReward(AnswerVerifier):
    """1.0 if |answer - truth| <= absolute_tolerance, or <= relative_tolerance * |truth|; else 0.0.

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

    def score(self, completion: str, truth: str) -> float:
        answer = final_answer(completion, self.answer_in)
        if answer is None or max(len(answer), len(truth)) > LONGEST:
            return 0.0
        quantity, expected = (read_quantity(_NAMED.sub("", strip_decoration(text))) for text in (answer, truth))
        return float(quantity is not None and expected is not None and quantities_agree(quantity, expected, self._near))

    def _near(self, answer: Fraction, truth: Fraction) -> bool:
        difference = abs(answer - truth)
        return difference <= self.absolute_tolerance or difference <= Fraction(self.relative_tolerance) * abs(truth)
