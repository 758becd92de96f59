"""How a verifier reads a truth or an answer: for people who look for the reason of a verdict."""

from typing import NamedTuple

from calibrl_core.verifiers.notation import reductions
from calibrl_core.verifiers.quantities import read_quantity
from calibrl_core.verifiers.readings import is_code, kind_of, only_words


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


def _kind(text: str) -> str:
    if quantity := read_quantity(text):
        return f"the number {quantity.value}" + (f" with the unit {quantity.unit}" if quantity.unit else "")
    if kind := kind_of(text):
        return {"options": "letters of several options"}.get(kind[0], f"a {kind[0]}")
    if len(text) == 1 and text.isalpha():
        return "a letter: an option, or a variable"
    if only_words(text):
        return "words, compared letter by letter"
    if is_code(text):
        return "a name, a code or a statement about figures, compared sign by sign"
    return "a mathematical expression" if text else "nothing"
