"""Answers that are no mathematics, though they look like it: times, dates, ranges, ratios, letters of options, codes.

Each reader returns a key, which is equal for equal answers, or None for a text of another kind.
"""

import re
from collections.abc import Callable, Hashable
from fractions import Fraction
from math import gcd, lcm
from operator import eq
from typing import Any, NamedTuple

from calibrl_core.verifiers.notation import without_spaces
from calibrl_core.verifiers.quantities import read_quantity, split_unit
from calibrl_core.verifiers.units import canonical_unit

_TIME = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))? ?(?:(?P<period>[ap])\.? ?m\b\.?)?", re.IGNORECASE
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*)\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_MONTH} {_DAY}(?:,? (?P<year>\d{{4}}))?",
        rf"{_DAY} (?:of )?{_MONTH}(?:,? (?P<year>\d{{4}}))?",
        rf"{_MONTH},? (?P<year>\d{{4}})",
        r"(?P<year>\d{4}) ?[-/.] ?(?P<month>\d{1,2}) ?[-/.] ?(?P<day>\d{1,2})",
        r"(?:(?P<year>\d{4})年)?(?P<month>\d{1,2})月(?P<day>\d{1,2})[日号]",
    )
)
_SLASHED = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})")  # the order of day and month is unknown
_AMOUNT = r"\d+(?:,\d{3})*(?:\.\d+)?"
_RANGE = re.compile(rf"({_AMOUNT}) ?%? ?(?:-|~|\\sim|to|至|到) ?({_AMOUNT})(?P<unit> ?[^\d].*)?")
_RATIO = re.compile(rf"{_AMOUNT}(?:(?: ?: ?| to ){_AMOUNT})+")
_COMPOUND = re.compile(r"(\d+(?:\.\d+)?) ?([^\W\d]+|'+|\")(?: and |, | |(?=\d)|\Z)")
_ARCS = dict.fromkeys(("'", "minute", "minutes"), "arcminute") | dict.fromkeys(('"', "second", "seconds"), "arcsecond")
_FRACTION_BAR = re.compile(r"(?:\\frac\{)?(\d+)(?:\}\{| ?/ ?| to | ?: ?)(\d+)\}?")
_NOON = {"noon": "12:00 pm", "midnight": "12:00 am"}
_SETS = re.compile(r"[A-Z](?: ?\\(cup|cap) ?[A-Z](?![A-Za-z]))(?: ?\\\1 ?[A-Z](?![A-Za-z]))*")
_LETTERS = re.compile(r"\(?[A-J]\)?(?:(?: ?[,;/&] ?(?:and )?| and )?\(?[A-J]\)?)+")
_WORDS = re.compile(r"[^\W\d_][^\W\d_' -]*(?:[' -][^\W\d_' -]+)*'?")
_PRODUCT = re.compile(r"[b-df-hj-np-tv-xz]{2,4}")  # mgh: no word has no vowel
_DIFFERENCE = re.compile(r"[^\W\d_](?: ?- ?[^\W\d_])+")  # R-r
_A_WORD = re.compile(r"[A-Za-z]{3}")
_SHORT_WORDS = frozenset(
    [
        "no",
        "up",
        "in",
        "on",
        "at",
        "to",
        "by",
        "of",
        "or",
        "is",
        "it",
        "as",
        "go",
        "he",
        "we",
        "me",
        "my",
        "us",
        "if",
        "so",
        "do",
        "an",
        "am",
        "be",
        "ox",
        "pi",
    ]
)
_SYNONYMS = dict.fromkeys(("no solutions", "there is no solution", "无解", "方程无解"), "no solution") | {
    "dne": "does not exist"
}
_GENES = re.compile(r"(?:([a-z])\1){1,4}", re.IGNORECASE)
_COMMAND = re.compile(r"\\(?:begin|end) ?\{[a-z]+\}|\\[A-Za-z]+")
_FIGURES = re.compile(r"\\(?:angle|triangle|parallel|perp|cong|sim|odot)(?![A-Za-z])")
_CODE = re.compile(r"(?<![A-Za-z\\_])[A-Za-z]+\d|[A-Z][a-z]{2,}|[A-Za-z]{4,}|[^\W\d_A-Za-zα-ωΑ-ΩμΩ]")
_CODE_LIKE = re.compile(r"\d+(?:-\d+){2,}")  # a phone number
_ANGLE = re.compile(r"\\angle([a-z])([a-z])([a-z])(?![a-z])")  # ABC and CBA are the same angle
_ARTICLE = re.compile(r"\A(?:the|an?) (?=[a-z])")


class Time(NamedTuple):
    """A time of day as written; `period`: am, pm or empty."""

    hour: int
    minute: int
    second: int
    period: str


def _time(text: str) -> Time | None:
    word = text.lower().removeprefix("12:00 ").removeprefix("12 ")
    match = _TIME.fullmatch(_NOON.get(word, text))
    if match is None or int(match["hour"]) > 24:
        return None
    period = (match["period"] or "").lower()
    return Time(int(match["hour"]), int(match["minute"]), int(match["second"] or 0), period and period + "m")


def _same_time(first: Time, second: Time) -> bool:
    if first[1:3] != second[1:3]:
        return False
    if bool(first.period) == bool(second.period):
        return (first.hour, first.period) == (second.hour, second.period)
    bare, named = (second, first) if first.period else (first, second)
    hour = named.hour % 12 + (12 if named.period == "pm" else 0)
    return bare.hour in (named.hour, hour)


def _date(text: str) -> Hashable | None:
    if match := _SLASHED.fullmatch(text):
        return ("slashed", int(match[1]), int(match[3]), int(match[4]))
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            parts = match.groupdict()
            month = parts["month"]
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
            year, day = parts.get("year"), parts.get("day")
            return ("date", int(year) if year else None, number, int(day) if day else None)
    return None


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _range(text: str) -> tuple[Fraction, Fraction] | None:
    match = _RANGE.fullmatch(text)
    if match is None or (match["unit"] and not split_unit(f"1{match['unit']}")[1]):
        return None
    return _number(match[1]), _number(match[2])


def _ratio(text: str) -> tuple[int, ...] | None:
    if not _RATIO.fullmatch(text):
        return None
    values = [_number(part) for part in re.split(r" ?: ?| to ", text)]
    scale = lcm(*(value.denominator for value in values))
    whole = [int(value * scale) for value in values]
    share = gcd(*whole) or 1
    return tuple(value // share for value in whole)


def _compound(text: str) -> tuple[tuple[Fraction, str], ...] | None:
    """Return the parts of a quantity in several units: `2 hours 30 minutes`, `45 degree 30'`."""
    text = text.replace("''", '"')
    parts = list(_COMPOUND.finditer(text))
    if len(parts) < 2 or "".join(part[0] for part in parts) != text:
        return None
    arcs = _ARCS if parts[0][2].startswith("degree") else {}
    units = [canonical_unit(arcs.get(part[2], part[2])) for part in parts]
    return (
        None if None in units else tuple((_number(part[1]), str(unit)) for part, unit in zip(parts, units, strict=True))
    )


class _Listed(NamedTuple):
    """Words of a list; without braces their order counts."""

    words: tuple[str, ...]
    braces: bool


def _listed(text: str) -> _Listed | None:
    inner = re.sub(r"\A\\\{ ?(.*?) ?\\\}\Z", r"\1", text)
    words = re.split(r", (?:and )?| and ", inner)
    if len(words) < 2 or any(only_words(word) is None for word in words):
        return None
    return _Listed(tuple(word.casefold() for word in words), braces=inner != text)


def _same_list(first: _Listed, second: _Listed) -> bool:
    if first.braces or second.braces:
        return sorted(first.words) == sorted(second.words)
    return first.words == second.words


def letters(text: str, *, any_order: bool = False) -> frozenset[str] | None:
    """Return the letters of several options (`ABD`; `D, A and B`), or None. Letters without separators are in the order
    of the alphabet, unless any order is allowed: `BA` is a line.
    """
    if not _LETTERS.fullmatch(text):
        return None
    found = re.findall(r"[A-J]", text)
    ordered = any_order or not text.isalpha() or found == sorted(found)
    return frozenset(found) if ordered and len(set(found)) == len(found) else None


def only_words(text: str) -> str | None:
    """Return the undecorated text in lower case if it consists of words (at least two letters), else None. The case of
    genes counts: `Aa` is not `aa`.
    """
    if not _WORDS.fullmatch(text) or len(text) == 1 or _PRODUCT.fullmatch(text) or _DIFFERENCE.fullmatch(text):
        return None
    if text.islower() and text.isascii() and not _A_WORD.search(text) and text.lower() not in _SHORT_WORDS:  # a-bi, ab
        return None
    if _GENES.fullmatch(text):
        return text
    word = _ARTICLE.sub("", text.casefold())
    return _SYNONYMS.get(word, word)


def is_code(text: str) -> bool:
    """Return if an undecorated text is a name, a code, a formula of chemistry or a statement about figures, in which
    the order of letters counts.
    """
    if "=" in text:
        return False
    if _FIGURES.search(text) or _CODE_LIKE.fullmatch(text):
        return True
    return bool(_CODE.search(_COMMAND.sub("#", split_unit(text)[0].replace("degree", "#"))))


def code_key(text: str) -> str:
    """Return what equal codes share: the text without spaces, braces and case."""
    key = without_spaces(_ARTICLE.sub("", text.casefold())).translate({ord(sign): None for sign in "{}_"})
    return _ANGLE.sub(lambda found: f"\\angle{''.join(sorted(found[1] + found[3], key=str))}{found[2]}", key)


def _combined(text: str) -> tuple[str, frozenset[str]] | None:
    """Return the sign and the names of a union or an intersection of sets, whose order does not count."""
    match = _SETS.fullmatch(text)
    return (match[1], frozenset(re.findall(r"(?<![\\a-z])[A-Z]", text))) if match else None


class _Kind(NamedTuple):
    name: str
    read: Callable[[str], Any]
    same: Callable[[Any, Any], bool]
    strict: bool  # an answer of another kind is wrong


_KINDS = (
    _Kind("time", _time, _same_time, True),
    _Kind("date", _date, eq, True),
    _Kind("compound", _compound, eq, True),
    _Kind("range", _range, eq, True),
    _Kind("ratio", _ratio, eq, True),
    _Kind("options", letters, eq, False),
    _Kind("combination of sets", _combined, eq, False),
    _Kind("list of words", _listed, _same_list, False),
)


def kind_of(text: str) -> tuple[str, object] | None:
    """Return the kind of an undecorated text and its key, or None for mathematics and words."""
    return next(((kind.name, key) for kind in _KINDS if (key := kind.read(text)) is not None), None)


def same_kind(answer: str, truth: str) -> bool | None:
    """Return the verdict on two undecorated texts if the truth is a time, a date, a range, a ratio or several letters,
    or the answer a time or a date; otherwise None.
    """
    if _time(truth) and not _time(answer):  # 16:25 can be a ratio, but then it is not reduced
        return _FRACTION_BAR.sub(r"\1:\2", answer) == without_spaces(truth)
    keys = [(kind, kind.read(answer), kind.read(truth)) for kind in _KINDS]
    for kind, given, expected in keys:
        if given is not None and expected is not None:
            return kind.same(given, expected)
    ratio = _ratio(truth)
    if ratio is not None and len(ratio) == 2 and _is_quotient(answer, ratio):
        return True
    strict = any(
        (kind.strict and expected is not None) or (kind.name in ("time", "date") and given is not None)
        for kind, given, expected in keys
    )
    return False if strict else None


def _is_quotient(answer: str, ratio: tuple[int, ...]) -> bool:
    quantity = read_quantity(answer)
    return quantity is not None and quantity.unit == "" and quantity.value * ratio[1] == ratio[0]
