"""Inequalities and unions of intervals as sets of real numbers, so that `-2 < x < 5` equals `(-2, 5)`."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

_RELATION = re.compile(r"\\(le|ge|ne|lt|gt)(?![A-Za-z])|([<>=])")
_INEQUALITY = re.compile(r"\\(?:le|ge|ne|lt|gt)(?![A-Za-z])|[<>]")
_OR = re.compile(r" or |\\cup(?![A-Za-z])|\\vee(?![A-Za-z])|\\lor(?![A-Za-z])")
_AND = re.compile(r" and |\\wedge(?![A-Za-z])|\\land(?![A-Za-z])")
_BUILDER = re.compile(r"\\?\{ ?[a-z](?: ?\\in ?R)? ?(?:[:|]|\\mid(?![A-Za-z])) ?(.*?) ?\\?\}")
_MEMBER = re.compile(r"[a-z] ?\\in ?(?=[(\[\\])")
_INTERVAL = re.compile(r"([(\[]) ?([^,]+), ?([^,]+?) ?([)\]])")
_ALL_BUT = re.compile(r"R ?\\setminus ?(.*)")
_POINTS = re.compile(r"\\\{([^{}]*)\\\}")
_OPERATORS = {"le": "<=", "ge": ">=", "ne": "!=", "lt": "<", "gt": ">", "=": "=="}

Parse = Callable[[str], Any]  # an expression of text, or None


def real_set(text: str, parse: Parse) -> Any:
    """Return the set of real numbers that a text describes, as sympy's set; None if it describes none."""
    from sympy import S, Union

    text = _MEMBER.sub("", text.strip())
    if builder := _BUILDER.fullmatch(text):
        text = builder[1]
    if not (_INEQUALITY.search(text) or _INTERVAL.search(text) or _ALL_BUT.search(text)):  # equations take long
        return None
    parts = [_conjunction(part.strip(), parse) for part in _OR.split(text)]
    if any(part is None for part in parts):
        return None
    try:
        return Union(S.EmptySet, *parts)
    except (TypeError, NotImplementedError):
        return None


def _conjunction(text: str, parse: Parse) -> Any:
    from sympy import Intersection, S

    parts = [_simple(part.strip(), parse) for part in _AND.split(text)]
    return None if any(part is None for part in parts) else Intersection(S.Reals, *parts)


def _simple(text: str, parse: Parse) -> Any:
    from sympy import FiniteSet, Interval, S

    if match := _INTERVAL.fullmatch(text):
        ends = [parse(match[2]), parse(match[3])]
        if any(end is None or not end.is_number or not end.is_extended_real for end in ends):
            return None
        return Interval(*ends, match[1] == "(", match[4] == ")")
    if match := _ALL_BUT.fullmatch(text):
        left_out = _simple(match[1], parse)
        return None if left_out is None else S.Reals - left_out
    if match := _POINTS.fullmatch(text):
        points = [parse(point) for point in match[1].split(",")]
        return None if any(point is None or not point.is_number for point in points) else FiniteSet(*points)
    return _solved(text, parse)


def _solved(text: str, parse: Parse) -> Any:
    """Return the solutions of a chain of relations in one variable, such as `-2 \\le x < 5`."""
    from sympy import And, Rel

    sides = [parse(side) for side in _RELATION.split(text)[::3]]
    signs = [match[1] or match[2] for match in _RELATION.finditer(text)]
    if not signs or any(side is None for side in sides):
        return None
    names = set().union(*(side.free_symbols for side in sides))
    if len(names) != 1:
        return None
    try:
        chain = [
            Rel(first, second, _OPERATORS.get(sign, sign))
            for (first, second), sign in zip(pairwise(sides), signs, strict=True)
        ]
        return And(*chain).as_set()
    except (TypeError, ValueError, NotImplementedError, AttributeError):  # not solvable: compared otherwise
        return None
