"""Reduces notations of an answer to their content: delimiters, decoration, units, plain numbers.

Everything here takes time linear in its text, so that it can run in the trainer's own process.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from calibrl_core.verifiers.base import strip_boxed
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
    """A number as it was written, and its unit: empty without one; `%` is a unit."""

    value: Fraction
    unit: str


@lru_cache(maxsize=4096)
def strip_decoration(text: str) -> str:
    """Return the text without decoration: `\\boxed{}`, `$`, `\\left`, `\\text{}`, bold, a lead such as `The answer is`,
    the full stop. All white space becomes one space; Unicode signs become LaTeX.
    """
    text = strip_boxed(text).translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _LEAD.sub("", text.strip()).removesuffix(".").strip()


def only_words(text: str) -> str | None:
    """Return the undecorated text in lower case if it consists of words (at least two letters), else None."""
    return text.casefold() if _WORDS.fullmatch(text) else None


def split_unit(text: str) -> tuple[str, str]:
    """Return an undecorated text's value and the canonical name of its unit; without a unit, the text and an empty
    name.
    """
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return text, ""
    unit = canonical_unit(match["unit"].strip(), attached=not match["gap"])
    return (text, "") if unit is None else (match["value"].strip(), unit)


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """Return the plain number of an undecorated text, or None (1,234.5; -3/4; 1 1/2; 1.6e-19; \\frac{1}{2}; with any
    unit).
    """
    text, unit = split_unit(text)
    if match := _FRACTION.fullmatch(text):
        return _quantity(match["sign"], Fraction(int(match["over"])), match["under"], unit)
    match = _NUMBER.fullmatch(text)
    if match is None or not any(letter.isdigit() for letter in match["number"]):
        return None
    value = Fraction(match["number"].translate({44: None, 32: None}).rstrip("."))
    value *= Fraction(10) ** int(match["power"] or match["exponent"] or 0)
    if match["whole"]:
        value, under = value + int(match["whole"]) * int(match["under"] or 1), match["under"]
        return _quantity(match["sign"], value, under, unit)
    return _quantity(match["sign"], value, match["under"], unit)


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
    return first == second or "" in (first, second)


def quantities_agree(answer: Quantity, truth: Quantity, near: Callable[[Fraction, Fraction], bool]) -> bool:
    """Return if two quantities are equal, with `near(answer, truth)` comparing numbers.

    50% equals 0.5, and also 50, as the answer to `what percentage?` is often written; but never 0.5%.
    """
    if not units_agree(answer.unit, truth.unit):
        return False
    if near(answer.value, truth.value):
        return True
    if (answer.unit == "%") == (truth.unit == "%"):
        return False
    return near(*(one.value / 100 if one.unit == "%" else one.value for one in (answer, truth)))
