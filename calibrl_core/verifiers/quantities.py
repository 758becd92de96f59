"""Plain numbers with units, read exactly."""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from calibrl_core.verifiers.notation import LONGEST, strip_decoration
from calibrl_core.verifiers.units import CONFUSABLE, canonical_unit

_WITH_UNIT = re.compile(
    r"(?P<value>.*?(?:[\d.)}\]!]|\\pi))(?P<gap> ?)"
    r"(?P<unit>[%'\"]|\\frac ?\{ ?(?:1|[^\W\d_][^{}]*(?:\{-?\d\})?) ?\} ?\{ ?[^\W\d_][^{}]*(?:\{-?\d\}[^{}]*)*\}"
    r"|(?:(?<= )1 ?/ ?)?[^\W\d_](?:/ ?100 |[^\W\d_ ]|[ ./·*()€£¥₹¢-]|\\cdot ?|\\times ?|\^ ?\{?-?\d\}?)*"
    r"|[€£¥₹¢]|\\(?:pounds|euro)|degree(?: [CF])?)"
)
_INTEGER = r"\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+"
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?(?:(?P<whole>\d{1,3}(?: \d{3})+|\d+) (?=(?:0|[1-9]\d*) ?/))?"
    rf"(?P<number>(?:{_INTEGER})?(?:\.\d+|(?<=\d)\.)?)"
    r"(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?\{? ?(?P<power>[+-]? ?\d{1,3}) ?\}?)?"
    r"(?: ?/ ?(?P<under>\d+))?"
)
_FRACTION = re.compile(r"(?P<sign>[+-]?) ?(?P<whole>\d*) ?\\frac ?\{? ?(?P<over>\d+) ?\}? ?\{ ?(?P<under>\d+) ?\}")
_POWER = re.compile(r"(?P<sign>[+-]?) ?(?P<base>\d{1,4}) ?\^ ?\{? ?(?P<power>[+-]? ?\d{1,3}) ?\}?")


class Quantity(NamedTuple):
    """A number as it was written, and its unit: empty without one; `%` is a unit."""

    value: Fraction
    unit: str


def split_unit(text: str, *, doubtful: bool = False) -> tuple[str, str]:
    """Return an undecorated text's value and the canonical name of its unit; without a unit, the text and an empty
    name. `doubtful` as of `canonical_unit`.
    """
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return text, ""
    attached = not match["gap"] and "{ " not in match["unit"]  # a space in a fraction is that of \\text{}
    unit = canonical_unit(match["unit"].strip(), attached=attached, doubtful=doubtful)
    return (text, "") if unit is None else (match["value"].strip(), unit)


@lru_cache(maxsize=4096)
def read_quantity(text: str, *, doubtful: bool = False) -> Quantity | None:
    """Return the plain number of an undecorated text, or None (1,234.5; -3/4; 1 1/2; 1.6 \\times 10^{-19}; 10^{3};
    \\frac{1}{2}; with any unit). `doubtful` as of `canonical_unit`.
    """
    text, unit = split_unit(text, doubtful=doubtful)
    if match := _FRACTION.fullmatch(text):
        over = int(match["over"]) + int(match["whole"] or 0) * int(match["under"])
        return _quantity(match["sign"], Fraction(over), match["under"], unit)
    if match := _POWER.fullmatch(text):
        power = _integer(match["power"])
        return (
            None
            if power < 0 and int(match["base"]) == 0
            else _quantity(match["sign"], Fraction(int(match["base"])) ** power, None, unit)
        )
    match = _NUMBER.fullmatch(text)
    if match is None or not any(letter.isdigit() for letter in match["number"]):
        return None
    value = Fraction(match["number"].translate({44: None, 32: None}).rstrip("."))
    value *= Fraction(10) ** _integer(match["power"] or "0")
    if match["whole"]:
        value, under = value + int(match["whole"].replace(" ", "")) * int(match["under"] or 1), match["under"]
        return _quantity(match["sign"], value, under, unit)
    return _quantity(match["sign"], value, match["under"], unit)


def _integer(text: str) -> int:
    return int(text.replace(" ", ""))


def _quantity(sign: str, over: Fraction, under: str | None, unit: str) -> Quantity | None:
    if under is not None and int(under) == 0:
        return None
    value = over / int(under or 1)
    return Quantity(-value if sign == "-" else value, unit)


def canonical_answer(answer: str) -> Quantity | str:
    """Return a key that equal answers share, as far as plain text can decide: the number, or the undecorated text in
    lower case.
    """
    if len(answer) > LONGEST:
        return answer
    text = strip_decoration(answer)
    return read_quantity(text) or text.casefold()


def units_agree(first: str, second: str) -> bool:
    """Return if two units do not contradict each other: a unit can be missing."""
    return first == second or "" in (first, second) or frozenset((first, second)) in CONFUSABLE


def quantities_agree(answer: Quantity, truth: Quantity, near: Callable[[Fraction, Fraction], bool]) -> bool:
    """Return if two quantities are equal, with `near(answer, truth)` comparing numbers.

    50% equals 0.5, and also 50, as the truth of `what percentage?` is often written; but never 0.5%.
    """
    if not units_agree(answer.unit, truth.unit):
        return False
    if near(answer.value, truth.value):
        return truth.unit == "%" or answer.unit != "%" or abs(truth.value) > 1  # a truth of 0.75 is 75%
    if (answer.unit == "%") == (truth.unit == "%"):
        return False
    return near(*(one.value / 100 if one.unit == "%" else one.value for one in (answer, truth)))
