"""How a verifier reads a truth or an answer: for people who look for the reason of a verdict."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from calibrl_core.verifiers.choice import without_call
from calibrl_core.verifiers.expressions import chain, named_lines, normal_latex
from calibrl_core.verifiers.math import (
    CODES,
    EXPRESSIONS,
    WORDS,
    two_values,
    with_binomials,
    with_components,
    without_degrees,
    without_names,
)
from calibrl_core.verifiers.notation import LONGEST, reductions, strip_decoration
from calibrl_core.verifiers.numeric import without_name
from calibrl_core.verifiers.quantities import read_quantity
from calibrl_core.verifiers.readings import code_key, is_code, kind_of, only_words

READING = ("math", "numeric", "choice")  # types of the verifiers that read by the named steps
# What is neither a quantity nor of a kind of `readings`: its name, its meaning, and if a text is of it.
_KINDS: dict[str, tuple[str, Callable[[str], object]]] = {
    "letter": ("a letter: an option, or a variable", lambda text: len(text) == 1 and text.isalpha()),
    "words": ("words, compared letter by letter", only_words),
    "code": ("a name, a code or a statement about figures, compared sign by sign", is_code),
    "expression": ("a mathematical expression", bool),
    "nothing": ("nothing", lambda text: True),
}


class Change(NamedTuple):
    """One change of a text that is compared, after the steps. `meaning` completes the sentence: the change ..."""

    name: str
    meaning: str
    of: str  # type of the verifier
    rule: str | None  # rule that makes the change; None: each rule
    change: Callable[[str, str], str]  # of a text and the text that it is compared with


def _in_chain(text: str, other: str) -> str:
    parts = chain(text)
    return " = ".join(parts) if len(parts) > 1 else text


CHANGES = (
    Change("two values", "writes the two values of ± with a comma", "math", None, lambda text, _: two_values(text)),
    Change(
        "components",
        "writes `2i-j` as `(2,-1)`, if the other text is a point or a matrix",
        "math",
        None,
        with_components,
    ),
    Change(
        "choices",
        "writes `C(5,2)` and `P(5,2)` as numbers of choices, if the other text is no point",
        "math",
        None,
        with_binomials,
    ),
    Change(
        "names",
        r"removes the name before a value or a point, such as `\angle A =`, if the other text has none",
        "math",
        None,
        lambda text, other: without_names(text, other)[0],
    ),
    Change(
        "words",
        "writes words in lower case, without an article, and `dne` and 无解 in full",
        "math",
        WORDS,
        lambda text, _: only_words(text) or text,
    ),
    Change(
        "codes", "removes spaces, braces and the case of names and codes", "math", CODES, lambda text, _: code_key(text)
    ),
    Change(
        "missing degrees", "removes the degree sign if the other text has none", "math", EXPRESSIONS, without_degrees
    ),
    Change("hundredths", "writes percentages in a chain as fractions", "math", EXPRESSIONS, _in_chain),
    Change(
        "lines of figures",
        "takes adjacent capitals as one name, AB is a line, and so each derivative",
        "math",
        EXPRESSIONS,
        lambda text, _: named_lines(text),
    ),
    Change(
        "parser",
        "writes LaTeX as the parser of math-verify knows it",
        "math",
        EXPRESSIONS,
        lambda text, _: normal_latex(text),
    ),
    Change("variable", "removes `x =` at the start", "numeric", None, lambda text, _: without_name(text)),
    Change(
        "call", "removes a lead such as `The correct option is`", "choice", None, lambda text, _: without_call(text)
    ),
)


def changes(text: str, other: str, verifier: str, rule: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, meaning and result of each change that a verifier makes in a text after the steps, for a rule."""
    for one in CHANGES:
        if one.of == verifier and one.rule in (None, rule) and (changed := one.change(text, other)) != text:
            yield one.name, one.meaning, changed
            text = changed


class Reading(NamedTuple):
    """A text as it is read. `steps`: name and meaning of each step that changed it, and the text after it."""

    steps: tuple[tuple[str, str, str], ...]
    text: str
    kind: str


def read(text: str) -> Reading:
    """Return how the verifiers `math`, `numeric` and `choice` read a text."""
    steps = tuple((step.name, step.meaning, changed) for step, changed in reductions(text))
    content = steps[-1][2] if steps else text
    return Reading(steps, content, _kind(content))


def truth_kind(truth: str) -> str:
    """Return the kind of a truth as verifiers read it: number, number with unit, time, date, range, ratio, options,
    letter, words, code, expression, nothing; or long text, which no verifier reads.
    """
    if len(truth) > LONGEST:
        return "long text"
    content = strip_decoration(truth)
    if quantity := read_quantity(content):
        return "number with unit" if quantity.unit else "number"
    if kind := kind_of(content):
        return kind[0]
    return next(name for name, (_, fits) in _KINDS.items() if fits(content))


def _kind(text: str) -> str:
    if quantity := read_quantity(text):
        return f"the number {quantity.value}" + (f" with the unit {quantity.unit}" if quantity.unit else "")
    if kind := kind_of(text):
        return {"options": "letters of several options"}.get(kind[0], f"a {kind[0]}")
    return next(meaning for meaning, fits in _KINDS.values() if fits(text))
