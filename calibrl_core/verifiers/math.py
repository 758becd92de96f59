"""Answer reward: mathematical equivalence of the `<answer>` text and the truth, through math-verify."""

import logging
import re
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from calibrl_core.verifiers.base import AnswerVerifier, NeedsWorker, final_answer
from calibrl_core.verifiers.choice import same_choice
from calibrl_core.verifiers.notation import (
    LONGEST,
    only_words,
    quantities_agree,
    read_quantity,
    split_unit,
    strip_decoration,
    units_agree,
)

_OPTION = re.compile(r"\(?[A-J]\)?")
_CHAIN = re.compile(r"=|\\approx")
_APART = re.compile(r"(?<!_\d)(?<=\d) (?=\d)")  # two adjacent numbers, which LaTeX would read as a sum or a product
_BASE = re.compile(r"(?<=\d)_ ?\{? ?(\d+)")  # 101_2, which math-verify reads as 101


class MathReward(AnswerVerifier):
    """1.0 if the answer is equivalent to the truth, else 0.0.

    It knows fractions, roots, powers, sets, intervals, inequalities, tuples, matrices, equations, and percentages: 50%
    is 0.5, or 50. Decimals are equal to six places and two parts in a million. A unit may be missing on one side; two
    different ones are wrong, and none is converted. If the truth is a word or an option's letter, so is the answer. An
    answer with several values for a truth with one value is wrong.
    """

    type: Literal["math"] = "math"

    def score(self, completion: str, truth: str) -> float | NeedsWorker:
        answer = final_answer(completion, self.answer_in)
        if not answer or len(answer) > LONGEST:
            return 0.0
        if answer == truth:
            return 1.0
        if len(truth) > LONGEST:
            return 0.0
        if _OPTION.fullmatch(truth.strip()):
            return float(same_choice(answer, truth))
        answer, truth = strip_decoration(answer), strip_decoration(truth)
        if answer == truth:
            return 1.0
        if only_words(answer) or only_words(truth):
            return float(only_words(answer) == only_words(truth))
        quantity, expected = read_quantity(answer), read_quantity(truth)
        if quantity and expected:
            return float(quantities_agree(quantity, expected, _near))
        contradicts = len({*_BASE.findall(answer), *_BASE.findall(truth)}) > 1
        return 0.0 if not answer or contradicts or _APART.search(answer) else NeedsWorker(answer, truth)

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
        return float(_equivalent(text, truth))  # an apparent unit can be a factor

    def prepare(self) -> None:
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limit is off
        assert _equivalent(r"\frac{1}{2}", "0.5")  # compiles its expressions


def _near(answer: Fraction, truth: Fraction) -> bool:
    difference = abs(answer - truth)
    return difference * 2_000_000 <= 1 and difference * 500_000 <= abs(truth)


def _share(value: str, unit: str) -> str:
    return rf"\frac{{{value}}}{{100}}" if unit == "%" else value


def _equivalent(answer: str, truth: str) -> bool:
    """Return if one side of `a \approx b` is the truth, and no side contradicts another."""
    return any(_equal(side, truth) for side in answer.split(r"\approx")) and ("=" in truth or _is_one_number(answer))


def _equal(answer: str, truth: str) -> bool:
    from math_verify import verify

    gold, parsed = _parse(truth), _parse(answer)
    # The library's time limit is an alarm that its own `except` clauses can swallow. The pool kills the process.
    same = verify(gold, parsed, timeout_seconds=None, allow_set_relation_comp=True)
    return bool(same) and _same_size(parsed[0], gold[0])


def _parse(text: str) -> list[Any]:
    """Return the expression of the whole text, or nothing: never of a part, so that `7 or 8` is two values."""
    from math_verify import parse

    parsed: list[Any] = parse(f"${text}$", _whole_text(), fallback_mode="no_fallback", parsing_timeout=None)
    return parsed


@cache
def _whole_text() -> list[Any]:
    from math_verify.parser import LatexExtractionConfig, NormalizationConfig

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    return [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=rules)]


def _same_size(first: Any, second: Any) -> bool:
    """Return if two small numbers agree in their first digits, which six decimal places do not show. True
    for others.
    """
    numbers = [value for each in (first, second) if (value := _number(each)) is not None]
    return len(numbers) < 2 or _within(2e-6, *numbers)


def _is_one_number(answer: str) -> bool:
    """Return if all sides of a chain have the same value: `3+4=7` and `x=7` do, `8=7` has two values."""
    sides = [expression for side in _CHAIN.split(answer) for expression in _parse(side)]
    numbers = [value for side in sides if (value := _number(side)) is not None]
    return all(_within(1e-2, value, numbers[-1]) for value in numbers)


def _number(expression: Any) -> Any:
    """Return the value of an expression, or None if it has variables or is not real and finite."""
    return expression.evalf() if getattr(expression, "is_number", False) and expression.is_real else None


def _within(share: float, value: Any, reference: Any) -> bool:
    return bool(abs(value - reference) <= share * abs(reference))
