"""Fields of numbers, with the limits of their schema.

Streamlit's own limits are not used: if a number is out of them, the field shows it, but its old value is sent.
"""

import math
from typing import Any

import streamlit as st

from dashboard.forms.schema import Node

BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def limits(node: Node) -> str:
    """Return the range of a number in words, such as `at least 1 and at most 100`; empty without bounds."""
    return " and ".join(f"{word} {node[name]:,}" for name, word in BOUNDS.items() if name in node)


def out_of_range(node: Node, value: float) -> str | None:
    """Return the error of a number that is out of the range of its schema, with the range; None if it is in it."""
    fits = (
        value >= node.get("minimum", -math.inf)
        and value > node.get("exclusiveMinimum", -math.inf)
        and value <= node.get("maximum", math.inf)
        and value < node.get("exclusiveMaximum", math.inf)
    )
    return None if fits else f"{value:,g} is out of range: {limits(node)}"


def field(node: Node, start: Any, placeholder: str, common: dict[str, Any]) -> float | None:
    """Draw the field of an integer or a number and return its value, which can be out of range."""
    if node["type"] == "integer":
        whole: int | None = st.number_input(**common, value=start, step=1, placeholder=placeholder)
        return whole
    value: float | None = st.number_input(
        **common,
        value=None if start is None else float(start),
        step=_step(start or 0),
        format="%g",
        placeholder=placeholder,
    )
    return value


def _step(value: float) -> float:
    """The step of a number's plus button: about a tenth of the number."""
    return 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 0.01
