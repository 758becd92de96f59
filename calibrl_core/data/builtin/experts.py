"""Experts of the built-in datasets in different styles. The wrong ones and those of other rows are for controls."""

import re
from collections.abc import Sequence
from dataclasses import replace

from calibrl_core.data.schema import Example, ExpertStyle

LAST_NUMBER = re.compile(r"-?\d+(?=\.$)")


def write_expert(style: ExpertStyle, row: int, *, terse: str, wordy: str, answer: int) -> str:
    """Return the expert's completion of a row. `terse` ends with the answer and a full stop."""
    match style:
        case "wordy":
            thought = wordy
        case "wrong":
            thought, answer = LAST_NUMBER.sub(str(answer + 1), terse), answer + 1
        case "mixed":
            thought = terse if row % 2 == 0 else wordy
        case "terse" | "other_row":
            thought = terse
    return f"<think>{thought}</think><answer>{answer}</answer>"


def with_experts_of(style: ExpertStyle, examples: Sequence[Example]) -> list[Example]:
    """Return the examples; with `other_row` each has the expert of the next one, and the last that of the first."""
    if style != "other_row":
        return list(examples)
    experts = [example.expert for example in examples]
    return [
        replace(example, expert=expert) for example, expert in zip(examples, [*experts[1:], *experts[:1]], strict=True)
    ]
