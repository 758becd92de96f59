"""Answer reward: mathematical equivalence of the `<answer>` text and the truth, through math-verify."""

import logging
import re
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from calibrl_core.verifiers.base import Pending, Verifier, final_answer
from calibrl_core.verifiers.choice import same_choice
from calibrl_core.verifiers.notation import LONGEST, agree, bare, read_quantity, split_unit, units_agree, words

_OPTION = re.compile(r"\(?[A-J]\)?")
_CHAIN = re.compile(r"=|\\approx")
_APART = re.compile(r"(?<!_\d)(?<=\d) (?=\d)")  # two numbers side by side, which LaTeX would read as a sum or a product
_BASE = re.compile(r"(?<=\d)_ ?\{? ?(\d+)")  # 101_2, which math-verify reads as 101


class MathReward(Verifier):
    """Score 1.0 if the answer is mathematically equal to the reference answer; else 0.0.

    Recognised: fractions, roots, powers, sets, intervals, inequalities, tuples, matrices, equations, and percentages:
    50% equals 0.5, or 50. Decimals are equal up to six places and a relative difference of 2e-6. A unit can be missing
    on one side. Two different units are wrong; none is converted. If the reference answer is a word or the letter of an
    option, the answer must be one too. An answer with several values is wrong if one value is asked for.
    """

    type: Literal["math"] = "math"

    def score(self, completion: str, truth: str) -> float | Pending:
        answer = final_answer(completion)
        if not answer or len(answer) > LONGEST:
            return 0.0
        if answer == truth:
            return 1.0
        if len(truth) > LONGEST:
            return 0.0
        if _OPTION.fullmatch(truth.strip()):
            return float(same_choice(answer, truth))
        answer, truth = bare(answer), bare(truth)
        if answer == truth:
            return 1.0
        if words(answer) or words(truth):
            return float(words(answer) == words(truth))
        found, wanted = read_quantity(answer), read_quantity(truth)
        if found and wanted:
            return float(agree(found, wanted, _near))
        contradicts = len({*_BASE.findall(answer), *_BASE.findall(truth)}) > 1
        return 0.0 if not answer or contradicts or _APART.search(answer) else Pending(answer, truth)

    def judge(self, text: str, truth: str) -> float:
        (value, unit), (right, right_unit) = split_unit(text), split_unit(truth)
        if not units_agree(unit, right_unit):
            return 0.0
        if _equivalent(value, right):
            return 1.0
        if unit == right_unit:
            return 0.0
        if "%" in (unit, right_unit):
            return float(_equivalent(_share(value, unit), _share(right, right_unit)))
        return float(_equivalent(text, truth))  # what looks like a unit may be a factor

    def prepare(self) -> None:
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
        assert _equivalent(r"\frac{1}{2}", "0.5")  # compiles its expressions


def _near(answer: Fraction, truth: Fraction) -> bool:
    difference = abs(answer - truth)
    return difference * 2_000_000 <= 1 and difference * 500_000 <= abs(truth)


def _share(value: str, unit: str) -> str:
    return rf"\frac{{{value}}}{{100}}" if unit == "%" else value


def _equivalent(answer: str, truth: str) -> bool:
    """Whether one side of `a \approx b` is the truth, and no side contradicts another."""
    return any(_equal(side, truth) for side in answer.split(r"\approx")) and ("=" in truth or _is_one_number(answer))


def _equal(answer: str, truth: str) -> bool:
    from math_verify import verify

    gold, found = _parse(truth), _parse(answer)
    # Its time limit is an alarm, which its own `except` clauses may swallow; the pool ends the whole process instead.
    same = verify(gold, found, timeout_seconds=None, allow_set_relation_comp=True)
    return bool(same) and _same_size(found[0], gold[0])


def _parse(text: str) -> list[Any]:
    """The expression that the whole text is, or nothing: never a part of it, so that `7 or 8` is two values."""
    from math_verify import parse

    found: list[Any] = parse(f"${text}$", _whole_text(), fallback_mode="no_fallback", parsing_timeout=None)
    return found


@cache
def _whole_text() -> list[Any]:
    from math_verify.parser import LatexExtractionConfig, NormalizationConfig

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    return [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=rules)]


def _same_size(one: Any, other: Any) -> bool:
    """Six decimal places say nothing of very small numbers: those must agree in their first digits."""
    numbers = [value for each in (one, other) if (value := _number(each)) is not None]
    return len(numbers) < 2 or _within(2e-6, *numbers)


def _is_one_number(answer: str) -> bool:
    """Whether all numbers of a chain are about one: `3+4=7` and `x=7` are, `8=7` offers two values."""
    sides = [expression for side in _CHAIN.split(answer) for expression in _parse(side)]
    numbers = [value for side in sides if (value := _number(side)) is not None]
    return all(_within(1e-2, value, numbers[-1]) for value in numbers)


def _number(expression: Any) -> Any:
    """The value of an expression without variables; None where it has some, or is not real and finite."""
    return expression.evalf() if getattr(expression, "is_number", False) and expression.is_real else None


def _within(share: float, one: Any, other: Any) -> bool:
    return bool(abs(one - other) <= share * abs(other))
