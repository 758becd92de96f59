"""How people write an answer down, reduced to what it says: delimiters, decoration, units, plain numbers.

Everything here takes time linear in its text, so that it may run in the trainer's own process.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from calibrl_core.verifiers.base import unboxed
from calibrl_core.verifiers.units import canonical_unit

LONGEST = 500  # characters; a longer text is not an answer
# fmt: off
_COMMANDS = {
    "times": "×", "cdot": "⋅·", "div": "÷", "pm": "±", "sqrt": "√", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈",
    "pi": "π", "theta": "θ", "alpha": "α", "infty": "∞", "cup": "∪", "cap": "∩", "in": "∈", "emptyset": "∅",
}
_PLAIN = {
    "-": "−–", "^2": "²", "^3": "³", r"^\circ ": "°", "%": "％", " ": "\u00a0\u2009\u202f", "u": "µμ",
    r"\frac{1}{2}": "½", r"\frac{1}{3}": "⅓", r"\frac{1}{4}": "¼", r"\frac{3}{4}": "¾",
}
# fmt: on
_SIGNS = str.maketrans(
    {sign: rf"\{name} " for name, signs in _COMMANDS.items() for sign in signs}
    | {sign: text for text, signs in _PLAIN.items() for sign in signs}
)
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}", ","),  # a thousands separator in LaTeX
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\(?:left|right)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:text(?:rm|bf|it|normal)?|math(?:rm|bf|it)|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
        (r"(?<!\\)\\[()\[\]]|\\?\$|^\s*\*\*|\*\*\s*$", ""),  # delimiters, currency, bold
        (r"\*\*", "^"),
        (r"\\%", "%"),
        (r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))", " degree "),
        (r"(?<![A-Za-z\\])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])(sqrt|pi|sin|cos|tan|log|ln|infty|theta|alpha|beta)(?![A-Za-z])", r"\\\1"),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"\s+", " "),
    )
)
_LEAD = re.compile(
    r"\A(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?answer(?: is\b|:| =)[: ]*", re.IGNORECASE
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_WITH_UNIT = re.compile(
    r"(?P<value>.*?(?:[\d.)}\]!]|\\pi))(?P<gap> ?)(?P<unit>%|[A-Za-z€£](?:[A-Za-z ./·]|\^\{?\d\}?)*)"
)
_INTEGER = r"\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?:(?P<whole>\d+) (?=\d+ ?/))?(?P<number>(?:{_INTEGER})?(?:\.\d+|(?<=\d)\.)?)"
    r"(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?\{?(?P<power>[+-]?\d{1,3})\}?|[eE](?P<exponent>[+-]?\d{1,3}))?"
    r"(?: ?/ ?(?P<under>\d+))?"
)
_FRACTION = re.compile(r"(?P<sign>[+-]?) ?\\frac ?\{? ?(?P<over>\d+) ?\}? ?\{ ?(?P<under>\d+) ?\}")


class Quantity(NamedTuple):
    """A number as it was written, and its unit: empty where it has none, `%` is one."""

    value: Fraction
    unit: str


@lru_cache(maxsize=4096)
def bare(text: str) -> str:
    """The text without what only decorates it: `\\boxed{}`, `$`, `\\left`, `\\text{}`, bold, a lead such as `The answer
    is`, the full stop. One space stands where there was any; signs of Unicode become LaTeX."""
    text = unboxed(text).translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _LEAD.sub("", text.strip()).removesuffix(".").strip()


def words(text: str) -> str | None:
    """The text in lower case where, bare, it is nothing but words (two letters at least), else None."""
    return text.casefold() if _WORDS.fullmatch(text) else None


def split_unit(text: str) -> tuple[str, str]:
    """A bare text's value and the canonical name of its unit; the text itself and nothing where it has none."""
    found = _WITH_UNIT.fullmatch(text)
    if found is None:
        return text, ""
    unit = canonical_unit(found["unit"].strip(), attached=not found["gap"])
    return (text, "") if unit is None else (found["value"].strip(), unit)


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """The one plain number that a bare text is (1,234.5; -3/4; 1 1/2; 1.6e-19; \\frac{1}{2}; any with a unit)."""
    text, unit = split_unit(text)
    if found := _FRACTION.fullmatch(text):
        return _quantity(found["sign"], Fraction(int(found["over"])), found["under"], unit)
    found = _NUMBER.fullmatch(text)
    if found is None or not any(letter.isdigit() for letter in found["number"]):
        return None
    value = Fraction(found["number"].translate({44: None, 32: None}).rstrip("."))
    value *= Fraction(10) ** int(found["power"] or found["exponent"] or 0)
    if found["whole"]:
        value, under = value + int(found["whole"]) * int(found["under"] or 1), found["under"]
        return _quantity(found["sign"], value, under, unit)
    return _quantity(found["sign"], value, found["under"], unit)


def _quantity(sign: str, over: Fraction, under: str | None, unit: str) -> Quantity | None:
    if under is not None and int(under) == 0:
        return None
    value = over / int(under or 1)
    return Quantity(-value if sign == "-" else value, unit)


def canonical(answer: str) -> Quantity | str:
    """What equal answers have in common, as far as plain text tells: the number, or the bare text in lower case."""
    if len(answer) > LONGEST:
        return answer
    text = bare(answer)
    return read_quantity(text) or text.casefold()


def units_agree(one: str, other: str) -> bool:
    """Whether two units do not contradict each other: a unit may be left out."""
    return one == other or "" in (one, other)


def agree(answer: Quantity, truth: Quantity, near: Callable[[Fraction, Fraction], bool]) -> bool:
    """Whether two quantities are equal as far as `near(answer, truth)` tells numbers apart. 50% is 0.5, and also 50, as
    the answer to `what percentage?` may be written; but never 0.5%."""
    if not units_agree(answer.unit, truth.unit):
        return False
    if near(answer.value, truth.value):
        return True
    if (answer.unit == "%") == (truth.unit == "%"):
        return False
    return near(*(one.value / 100 if one.unit == "%" else one.value for one in (answer, truth)))
