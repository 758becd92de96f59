"""Mathematical expressions, read by latex2sympy and compared by math-verify. Only worker processes call this: it can
take long.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

_CHAIN = re.compile(r"(?<![<>!])=|\\approx(?![A-Za-z])")
_CAPITALS = re.compile(r"(?<![A-Za-z\\_{])[A-Z]{2,}(?![A-Za-z])")  # a line AB, whose letters are no factors


def prepare() -> None:
    """Load and warm up the libraries, which take long to load."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limit is off
    assert equivalent(r"\frac{1}{2}", "0.5")  # compiles its expressions


def equivalent(answer: str, truth: str) -> bool:
    """Return if one part of a chain such as `a = b \\approx c` is the truth, and all parts have the same value."""
    parts = [part.strip() for part in _CHAIN.split(answer)]
    if len(parts) == 1 or "=" in truth or "," in answer:
        return _equal(answer, truth)
    if not _is_one_value(parts):
        return False
    return any(_equal(part, truth) for part in parts) or _equal(answer, truth)


def _equal(answer: str, truth: str) -> bool:
    from math_verify import verify

    gold, parsed = _parse(truth), _parse(answer)
    # The library's time limit is an alarm that its own `except` clauses can swallow. The pool kills the process.
    same = verify(gold, parsed, timeout_seconds=None, allow_set_relation_comp=True)
    return bool(same) and _same_size(parsed[0], gold[0]) and _same_case(parsed[0], gold[0])


def _parse(text: str) -> list[Any]:
    """Return the expression of the whole text, or nothing: never of a part, so that `7 or 8` is two values."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
    from math_verify.grader import should_treat_as_complex

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    latex = normalize_latex(_CAPITALS.sub(r"q_{\g<0>}", text), rules)
    try:
        return [
            latex2sympy(
                latex,
                is_real=not should_treat_as_complex(latex),
                normalization_config=None,
                conversion_config=ConversionConfig(lowercase_symbols=False),
            )
        ]
    except Exception:  # of many kinds: the text is not mathematics
        return []


def _same_size(first: Any, second: Any) -> bool:
    """Return if two small numbers agree in their first digits, which six decimal places do not show. True
    for others.
    """
    numbers = [value for each in (first, second) if (value := _number(each)) is not None]
    return len(numbers) < 2 or _within(2e-6, *numbers)


def _same_case(first: Any, second: Any) -> bool:
    """Return False if two expressions differ in the case of their variables: R is not r."""
    names, others = ({symbol.name for symbol in getattr(one, "free_symbols", ())} for one in (first, second))
    return names == others or {name.lower() for name in names} != {name.lower() for name in others}


def _is_one_value(parts: Sequence[str]) -> bool:
    """Return if all numbers of a chain are equal, or round the first: `3+4=7` and `\\frac{1}{3} = 0.33` do, `8=7` has
    two values.
    """
    numbers = [(part, value) for part in parts for one in _parse(part) if (value := _number(one)) is not None]
    return all(_rounds(part, value, numbers[0][1]) for part, value in numbers[1:])


def _rounds(part: str, value: Any, exact: Any) -> bool:
    """Return if a written number is equal to the exact one, or is it rounded to its last decimal place."""
    if _within(2e-6, value, exact):
        return True
    decimal = re.fullmatch(r"[+-]? ?\d+(?:\.(\d+))?(?: .*| ?%| ?\\.*)?", part)
    unit = 10.0 ** -len(decimal[1] or "") if decimal else 0.0
    return bool(abs(value - exact) <= unit * 0.500001)


def _number(expression: Any) -> Any:
    """Return the value of an expression, or None if it has variables or is not real and finite."""
    return expression.evalf() if getattr(expression, "is_number", False) and expression.is_real else None


def _within(share: float, value: Any, reference: Any) -> bool:
    return bool(abs(value - reference) <= share * abs(reference))


def value_of(text: str) -> float | None:
    """Return the value of an undecorated text, or None if it is not one real number."""
    numbers = [value for one in _parse(text) if (value := _number(one)) is not None]
    return float(numbers[0]) if numbers else None
