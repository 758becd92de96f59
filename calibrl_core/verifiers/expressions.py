"""Mathematical expressions, read by latex2sympy and compared by math-verify. Only worker processes call this: it can
take long.
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from calibrl_core.verifiers.real_sets import real_set

_CHAIN = re.compile(r"(?<![<>!])=|\\approx(?![A-Za-z])")
_PAIR = re.compile(r"\( ?([^(),]+), ?([^(),]+)\)")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{1,4}(?![A-Za-z{])")
_GREEK = re.compile(
    r"\\((?i:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|chi|psi|omega))"
    r"(?![A-Za-z])"
)
_GREEK_LETTER = re.compile(r"[Α-Ωα-ω]")
_IN_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")
_DERIVATIVE = re.compile(r"\\frac ?\{ ?d ?([A-Za-z]) ?\} ?\{ ?d ?([A-Za-z]) ?\}")  # which would be evaluated as 0
_LINKED = re.compile(r" (?:and|or) ")
_PERCENT = re.compile(r"(.+?) ?%")
_CAPITALS = re.compile(r"(?<![A-Za-z\\_])(?<!_\{)[A-Z]{2,}(?![A-Za-z])")  # a line AB, whose letters are no factors


def prepare() -> None:
    """Load and warm up the libraries, which take long to load."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limit is off
    assert equivalent(r"\frac{1}{2}", "0.5")  # compiles its expressions


def equivalent(answer: str, truth: str) -> bool:
    """Return if one part of a chain such as `a = b \\approx c` is the truth, and all parts have the same value."""
    parts = chain(answer)
    if len(parts) == 1 or "=" in truth or "," in answer:
        return _equal(answer, truth)
    if not _is_one_value(parts):
        return False
    return any(_equal(part, truth) for part in parts) or _equal(answer, truth)


def chain(text: str) -> list[str]:
    """Return the parts of a chain such as `a = b`, with percentages as fractions; without a sign of equality, one."""
    return [_PERCENT.sub(r"\\frac{\1}{100}", part.strip()) for part in _CHAIN.split(text)]


def named_lines(text: str) -> str:
    """Return a text in which adjacent capitals are one name, AB is a line, and so is each derivative."""
    return _CAPITALS.sub(r"q_{\g<0>}", _DERIVATIVE.sub(r"q_{d\1d\2}", text))


def _equal(answer: str, truth: str) -> bool:
    from math_verify import verify

    pairs = [_PAIR.fullmatch(text) for text in (answer, truth)]
    if pairs[0] and pairs[1]:  # as an interval, (5, -1) is empty, like any other pair in the wrong order
        return all(_equal(one, other) for one, other in zip(pairs[0].groups(), pairs[1].groups(), strict=True))
    if _other_case(answer, truth):
        return False
    if _LINKED.search(answer) and _LINKED.search(truth):  # the parser takes `and` for `or`
        sets = [real_set(text, _one) for text in (answer, truth)]
        if None not in sets:
            return bool(sets[0] == sets[1])
    gold, parsed = _parse(truth), _parse(answer)
    # The library's time limit is an alarm that its own `except` clauses can swallow. The pool kills the process.
    if verify(list(gold), list(parsed), timeout_seconds=None, allow_set_relation_comp=True):
        return _same_size(parsed[0], gold[0]) and not _other_brackets(answer, truth)
    return _same_solutions(answer, truth) or bool(gold and parsed and _same_value(parsed[0], gold[0]))


def _same_solutions(answer: str, truth: str) -> bool:
    """Return if two texts describe one set of real numbers, as inequalities or as intervals."""
    names, others = (_letters(text) for text in (answer, truth))
    if names and others and names != others:
        return False
    found = real_set(answer, _one)
    return found is not None and found == real_set(truth, _one)


def _same_value(first: Any, second: Any) -> bool:
    """Return if a tuple has the entries of a matrix with one column, or if two numbers or complex expressions agree."""
    from sympy import Expr, I, Matrix, Product, Sum, simplify

    if isinstance(first, Matrix) != isinstance(second, Matrix):
        columns = _entries(first), _entries(second)
        return len(columns[0]) == len(columns[1]) > 0 and all(
            simplify(one - other) == 0 for one, other in zip(*columns, strict=True)
        )
    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return False
    unit = [one.subs({name: I for name in one.free_symbols if name.name == "i"}) for one in (first, second)]
    difference = unit[0] - unit[1]
    if difference == 0:  # 1 n and n, which the parser does not multiply
        return True
    if difference.is_number:
        try:
            distance, size = (abs(complex(one.evalf())) for one in (difference, unit[1]))
        except (TypeError, OverflowError):  # not a number after all, such as nan
            return False
        return distance <= 5e-7 and distance <= 2e-6 * size
    if difference.has(Sum, Product):  # simplifying can take forever
        return _agree_at_integers(difference)
    return _vanishes(difference) and simplify(difference) == 0


def _agree_at_integers(difference: Any) -> bool:
    """Return if a difference with sums or products is 0 for all its variables at 1, 2, ... and 7."""
    try:
        return all(
            difference.subs(dict.fromkeys(difference.free_symbols, value)).doit().equals(0) for value in range(1, 8)
        )
    except (TypeError, ValueError, NotImplementedError):
        return False


def _vanishes(difference: Any) -> bool:
    """Return if an expression is 0 at some point, as few wrong answers are: simplifying takes longer."""
    point = {name: 0.37 + 0.29 * place for place, name in enumerate(sorted(difference.free_symbols, key=str))}
    try:
        return bool(abs(complex(difference.subs(point).evalf())) < 1e-9)
    except (TypeError, OverflowError, ValueError):
        return False


def _entries(one: Any) -> list[Any]:
    """Return the entries of a tuple, or of a matrix with one column; otherwise nothing."""
    from sympy import Interval, Matrix, Tuple

    if isinstance(one, Matrix):
        return list(one) if one.shape[1] == 1 else []
    if isinstance(one, Interval):  # (1, 2) is read as an interval
        return [one.start, one.end] if one.left_open and one.right_open else []
    return list(one.args) if isinstance(one, Tuple) else []


def _other_brackets(first: str, second: str) -> bool:
    """Return if one text is a set in braces and the other a point or an interval in brackets."""
    one, other = sorted((first, second), key=lambda text: not text.startswith(r"\{"))
    return one.startswith(r"\{") and _IN_BRACKETS.fullmatch(other) is not None


def _one(text: str) -> Any:
    return next(iter(_parse(text)), None)


def normal_latex(text: str) -> str:
    """Return a text in the LaTeX that the parser knows, by the rules of math-verify's library."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    return str(normalize_latex(text, rules))


@lru_cache(maxsize=512)  # parsing takes most of the time, and the truth is the same for a whole group
def _parse(text: str) -> tuple[Any, ...]:
    """Return the expression of the whole text, or nothing: never of a part, so that `7 or 8` is two values."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from math_verify.grader import should_treat_as_complex

    latex = normal_latex(named_lines(text))
    try:
        return (
            latex2sympy(
                latex,
                is_real=not should_treat_as_complex(latex),
                normalization_config=None,
                conversion_config=ConversionConfig(lowercase_symbols=False),
            ),
        )
    except Exception:  # of many kinds: the text is not mathematics
        return ()


def _same_size(first: Any, second: Any) -> bool:
    """Return if two small numbers agree in their first digits, which six decimal places do not show. True
    for others.
    """
    numbers = [value for each in (first, second) if (value := _number(each)) is not None]
    return len(numbers) < 2 or _within(2e-6, *numbers)


def _letters(text: str) -> set[str]:
    """Return the letters of a text that can be variables, Greek ones by name. R is the set of all real numbers, too."""
    greek = [*_GREEK.findall(text), *(_greek_name(letter) for letter in _GREEK_LETTER.findall(text))]
    return {*"".join(_VARIABLE.findall(_LINKED.sub(" ", text))), *greek} - {"R"}


def _greek_name(letter: str) -> str:
    """Return `theta` for θ and `Theta` for Θ."""
    name = unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    return name.capitalize() if letter.isupper() else name


def _other_case(first: str, second: str) -> bool:
    """Return if two texts differ in the case of their variables: a is not A."""
    names, others = _letters(first), _letters(second)
    return names != others and {name.lower() for name in names} == {name.lower() for name in others}


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
    decimal = re.fullmatch(r"(\\frac\{)?[+-]? ?\d+(?:\.(\d+))?(?: .*|\}\{100\}| ?\\.*)?", part)
    unit = 10.0 ** -(len(decimal[2] or "") + (2 if decimal[1] else 0)) if decimal else 0.0
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
