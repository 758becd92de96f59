"""Answer reward: mathematical equivalence of the `<answer>` text and the truth, through math-verify."""

from typing import Literal

from calibrl_core.verifiers.base import Verifier, extract_answer

LONGEST_ANSWER = 500  # characters; a longer one is not an answer, and parsing hostile text costs time


class MathReward(Verifier):
    """1.0 where the answer equals the truth (7, 7.0 and 14/2 are equal), else 0.0."""

    type: Literal["math"] = "math"

    def score(self, completion: str, truth: str) -> float:
        answer = extract_answer(completion)
        if answer is None or len(answer) > LONGEST_ANSWER:
            return 0.0
        if answer == truth.strip():
            return 1.0
        if answer.isdecimal() and truth.strip().isdecimal():
            return float(int(answer) == int(truth))
        return float(_equivalent(answer, truth))


def _equivalent(answer: str, truth: str) -> bool:
    # math-verify arms an alarm against expressions that never simplify: both calls give up after 2 seconds.
    from math_verify import parse, verify

    gold = parse(truth, parsing_timeout=2)
    return bool(gold) and verify(gold, parse(answer, parsing_timeout=2), timeout_seconds=2)
