"""How a verifier reads a truth or an answer: for people who look for the reason of a verdict."""

from collections.abc import Callable
from typing import NamedTuple

from calibrl_core.verifiers.notation import LONGEST, reductions, strip_decoration
from calibrl_core.verifiers.quantities import read_quantity
from calibrl_core.verifiers.readings import is_code, kind_of, only_words

READING = ("math", "numeric", "choice")  # types of the verifiers that read by the named steps
# What is neither a quantity nor of a kind of `readings`: its name, its meaning, and if a text is of it.
_KINDS: dict[str, tuple[str, Callable[[str], object]]] = {
    "letter": ("a letter: an option, or a variable", lambda text: len(text) == 1 and text.isalpha()),
    "words": ("words, compared letter by letter", only_words),
    "code": ("a name, a code or a statement about figures, compared sign by sign", is_code),
    "expression": ("a mathematical expression", bool),
    "nothing": ("nothing", lambda text: True),
}


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
