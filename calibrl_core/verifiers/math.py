"""Answer reward: mathematical equivalence of the `<answer>` text and the truth, through math-verify."""

import re
from fractions import Fraction
from typing import Literal

from calibrl_core.verifiers.base import NO_ANSWER, AnswerVerifier, Decision, Deferred, final_answer
from calibrl_core.verifiers.choice import same_choice
from calibrl_core.verifiers.expressions import equivalent, prepare
from calibrl_core.verifiers.notation import LONGEST, strip_decoration, without_spaces
from calibrl_core.verifiers.quantities import quantities_agree, read_quantity, split_unit, units_agree
from calibrl_core.verifiers.readings import code_key, is_code, kind_of, only_words, same_kind

# Rules
WORDS = "words are compared without their case"
CODES = "names and codes are compared sign by sign"
EXPRESSIONS = "mathematical expressions are compared"

_OPTION = re.compile(r"\(?[A-J]\)?")
_OPTION_WITH_TEXT = re.compile(r"\(?[A-J][).:] ?\S.*")
_APART = re.compile(r"(?<!_\d)(?<=\d) (?=\d)")  # two adjacent numbers, which LaTeX would read as a sum or a product
_CHOICES = re.compile(r"(?<![A-Za-z\\])([CP]) ?\( ?(\d{1,2}) ?, ?(\d{1,2}) ?\)")
_BASE = re.compile(r"(?<=\d)_ ?\{? ?(\d+)")  # 101_2, which math-verify reads as 101

_LINE = r"[A-Z]{1,3}(?: ?_ ?\{? ?\w+ ?\}?)?"
_NAMED = re.compile(
    rf"(?:\\angle ?)?(?P<name>[A-Z]{{1,3}}|{_LINE}(?: ?: ?{_LINE})+) ?= ?(?P<value>[^=]*\d[^=]*)|"
    r"(?P<point>[A-Z])(?: ?= ?)?(?P<place>\([^(),]+(?:,[^(),]+)+\))"
)


# A sum of multiples of the unit vectors i, j and perhaps k; no expression has both as imaginary units.
_COMPONENT = r"[^-+=,ijk]*"
_VECTOR = re.compile(rf"(-?{_COMPONENT})i([+-]{_COMPONENT})j(?:([+-]{_COMPONENT})k)?")


class MathReward(AnswerVerifier):
    """1.0 if the answer is equivalent to the truth, else 0.0.

    It knows fractions, roots, powers, sets, intervals, inequalities, tuples, matrices, equations, and percentages: 50%
    is 0.5, or 50. Decimals are equal to six places and two parts in a million. A unit may be missing on one side; two
    different ones are wrong, and none is converted. Times, dates, ranges, ratios, options, words, names and codes are
    compared as such. An answer with several values for a truth with one value is wrong; a chain such as `\\frac{1}{3}
    = 0.33` has one value if each part is equal to the first or rounds it.
    """

    type: Literal["math"] = "math"

    def decide(self, completion: str, truth: str) -> Decision:
        answer = final_answer(completion, self.answer_in)
        if not answer or len(answer) > LONGEST:
            return Decision(0.0, NO_ANSWER)
        if answer == truth:
            return Decision(1.0, "the texts are equal as they are")
        if len(truth) > LONGEST:
            return Decision(0.0, "the correct answer has more than 500 characters, so that only the same text is right")
        return _compared(answer, strip_decoration(answer), strip_decoration(truth))

    def judge(self, text: str, truth: str) -> float:
        if _same_mathematics(text, truth):
            return 1.0
        if ("degree" in text) != ("degree" in truth):  # the sign may be missing, as a unit may
            return float(_same_mathematics(without_degrees(text, truth), without_degrees(truth, text)))
        return 0.0

    def prepare(self) -> None:
        prepare()


def with_itself(truth: str) -> Deferred:
    """Return the comparison of a truth that is an expression with itself: `judge` accepts it only if it is parsed."""
    text = two_values(strip_decoration(truth))
    return Deferred(*without_names(text, text))


def _compared(written: str, answer: str, truth: str) -> Decision:
    """Return the verdict on an answer and a truth, both undecorated; `written`: the answer with its decoration."""
    answer, truth = two_values(answer), two_values(truth)
    answer, truth = with_components(answer, truth), with_components(truth, answer)
    answer, truth = without_names(with_binomials(answer, truth), with_binomials(truth, answer))
    if _OPTION.fullmatch(truth) or (_OPTION.fullmatch(answer) and _OPTION_WITH_TEXT.fullmatch(truth)):
        return same_choice(written, truth)
    if answer == truth or without_spaces(answer) == without_spaces(truth) != "":
        return Decision(1.0, "the texts are equal after the steps")
    quantity, expected = read_quantity(answer), read_quantity(truth)
    if quantity and expected:
        return Decision(float(quantities_agree(quantity, expected, _near)), "numbers and units are compared")
    if (quantity or expected) and _with_symbol(answer, truth):
        return Decision(1.0, "the numbers are equal, and a symbol after one of them can be its unit")
    if (verdict := same_kind(answer, truth)) is not None:
        kind = kind_of(truth) or kind_of(answer)
        return Decision(float(verdict), f"they are compared as a {kind[0] if kind else 'ratio'}")
    if only_words(answer) or only_words(truth):
        return Decision(float(only_words(answer) == only_words(truth)), WORDS)
    if is_code(truth) or is_code(answer):
        return Decision(float(code_key(answer) == code_key(truth)), CODES)
    if len({*_BASE.findall(answer), *_BASE.findall(truth)}) > 1:
        return Decision(0.0, "the bases of the numbers differ")
    if not answer or _APART.search(answer):
        return Decision(0.0, "the answer is empty, or has two numbers without a sign between them")
    return Decision(Deferred(answer, truth), EXPRESSIONS)


def _with_symbol(answer: str, truth: str) -> bool:
    """Return if one text is a number, and the other the same number with a symbol that can be a unit: 5 and 5 S. The
    number 3 alone is not 3 t, as t is a variable more often than tonnes.
    """
    quantity, expected = read_quantity(answer, doubtful=True), read_quantity(truth, doubtful=True)
    if quantity is None or expected is None or {quantity.unit, expected.unit} == {"", "t"}:
        return False
    return quantities_agree(quantity, expected, _near)


def two_values(text: str) -> str:
    """Return the two values of a text with ±, with a comma between them."""
    if r"\pm" not in text:
        return text
    first = text.replace(r"\pm", "+").replace(r"\mp", "-")
    second = text.replace(r"\pm", "-").replace(r"\mp", "+")
    return f"{first}, {second}"


def with_components(text: str, other: str) -> str:
    """Return a text such as 2i-j as (2,-1) if the other one is a point or a matrix."""
    found = _VECTOR.fullmatch(without_spaces(text)) if other.startswith(("(", r"\begin")) else None
    if found is None:
        return text
    parts = [part + "1" if part in ("", "+", "-") else part for part in found.groups() if part is not None]
    return f"({','.join(parts)})"


def with_binomials(text: str, other: str) -> str:
    """Return a text with C(5,2) and P(5,2) as numbers of choices, unless the other text is a point: C can be, too."""
    if other.startswith("(") or _CHOICES.search(other):
        return text
    return _CHOICES.sub(
        lambda found: rf"\binom{{{found[2]}}}{{{found[3]}}}" + (rf"\cdot {found[3]}!" if found[1] == "P" else ""), text
    )


def without_names(answer: str, truth: str) -> tuple[str, str]:
    """Return answer and truth without the name before a quantity or a point, if one of the two has no name, or both
    have the same: `\\angle A = 75` and `P(5, -1)`.
    """
    first, second = _NAMED.fullmatch(answer), _NAMED.fullmatch(truth)
    names = {match["name"] or match["point"] for match in (first, second) if match}
    if len(names) != 1:
        return answer, truth
    return (first["value"] or first["place"] if first else answer), (
        second["value"] or second["place"] if second else truth
    )


def without_degrees(text: str, other: str) -> str:
    """Return a text without its degree signs if the other one has none."""
    return text if "degree" in other else text.replace("degree", " ")


def _same_mathematics(text: str, truth: str) -> bool:
    if "%" in text and ("=" in text or r"\approx" in text):  # the unit of a part of a chain
        return equivalent(text, truth)
    (value, unit), (right, right_unit) = split_unit(text), split_unit(truth)
    if not units_agree(unit, right_unit):
        return False
    if equivalent(value, right):
        return True
    if unit == right_unit:
        return False
    if "%" in (unit, right_unit):
        return equivalent(_share(value, unit), _share(right, right_unit))
    return equivalent(text, truth)  # an apparent unit can be a factor


def _near(answer: Fraction, truth: Fraction) -> bool:
    difference = abs(answer - truth)
    return difference * 2_000_000 <= 1 and difference * 500_000 <= abs(truth)


def _share(value: str, unit: str) -> str:
    return rf"\frac{{{value}}}{{100}}" if unit == "%" else value
