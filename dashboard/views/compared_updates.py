"""A what-if: the updates side by side, their effect by quadrant, and the tokens coloured by their change."""

from collections.abc import Iterator, Sequence
from typing import Any

import streamlit as st

from calibrl.schemas import ChangedCompletion, ComparedUpdate, WhatIf
from calibrl_core.metrics.expert import Quadrant
from dashboard.markup import chip, escape, heading, table
from dashboard.palette import CORRECT, NEUTRAL, RARENESS, WRONG
from dashboard.views.completions import Tint, coloured, legend, plain_box

NONE = "–"
SCALE = 0.95  # quantile of the size of the changes that gets the strongest colour
QUADRANTS: dict[Quadrant, str] = {
    "underconfident_correct": "Under-confident, correct",
    "confident_correct": "Confident, correct",
    "humble_wrong": "Under-confident, wrong",
    "overconfident_wrong": "Over-confident, wrong",
}
COLUMNS = (
    "Update",
    "Gradient norm",
    "Gradient cosine",
    "Norm of the weight change",
    "Weight cosine",
    "All tokens",
    "Correct",
    "Wrong",
)
HINT = (
    "Cosines compare with the update of the run. Changes: mean change of log-probability in 10⁻³ nats per token, "
    "measured after the update."
)


def draw(result: WhatIf) -> None:
    """Draw the result of a what-if."""
    st.caption(
        f"Step {result.step}, update {result.update}: {result.rollouts:,} rollouts with {result.tokens:,} tokens, "
        f"learning rate {result.learning_rate:g}. Every update starts from the same weights. Nothing was trained."
    )
    with st.container(border=True, key="card-updates"):
        st.html(heading("Compared updates", HINT) + table(COLUMNS, map(_update_row, result.updates)))
    if any(result.quadrant_tokens.values()):
        with st.container(border=True, key="card-update-quadrants"):
            names = [name for name in QUADRANTS if result.quadrant_tokens.get(name)]
            titles = [f"{QUADRANTS[name]} ({result.quadrant_tokens[name]:,})" for name in names]
            hint = "Mean change of log-probability in 10⁻³ nats per token. In brackets: tokens."
            rows = (_quadrant_row(update, names, titles) for update in result.updates)
            st.html(heading("Change by quadrant", hint) + table(("Update", *titles), rows))
    _completions(result)


def _update_row(update: ComparedUpdate) -> str:
    settings = ", ".join(f"{name}: {_setting(value)}" for name, value in update.changes.items())
    note = "" if update.applied else " (not finite: no weight changes)"
    below = f'<br><span style="opacity:.75;font-size:.85em">{escape(settings + note)}</span>' if settings + note else ""
    cells = (
        _number(update.gradient_norm, ".4g"),
        _number(update.gradient_cosine, "+.4f"),
        _number(update.update_norm, ".4g"),
        _number(update.update_cosine, "+.4f"),
        *map(_thousandths, (update.change, update.change_correct, update.change_wrong)),
    )
    return f"<tr><td>{escape(update.name)}{below}</td>{''.join(_cells(COLUMNS[1:], cells))}</tr>"


def _quadrant_row(update: ComparedUpdate, names: Sequence[Quadrant], titles: Sequence[str]) -> str:
    cells = (_thousandths(update.quadrants.get(name)) for name in names)
    return f"<tr><td>{escape(update.name)}</td>{''.join(_cells(titles, cells))}</tr>"


def _cells(titles: Sequence[str], values: Any) -> Iterator[str]:
    for title, value in zip(titles, values, strict=True):
        yield f'<td data-label="{escape(title)}">{value}</td>'


def _completions(result: WhatIf) -> None:
    if not result.completions:
        return
    names = [update.name for update in result.updates]
    chosen = st.selectbox("Colour tokens by the change of", names, key="what-if-update")
    place = names.index(chosen)
    tint = _tint(result, place)
    st.html(legend(tint))
    for number, completion in enumerate(result.completions):
        with st.container(border=True, key=f"card-changed-{number}"):
            st.html(_facts(completion) + coloured(_shown(completion, place), tint, number) + _rest(completion))


def _tint(result: WhatIf, place: int) -> Tint:
    """Colours on one scale for all updates. Its end is a change that one token in twenty exceeds."""
    sizes = sorted(abs(value) for one in result.completions for changes in one.changes for value in changes)
    full = (sizes[int(SCALE * (len(sizes) - 1))] if sizes else 0.0) or 1e-9
    ends = ((-full, f"{-full:.2g} nats or less"), (0.0, "0"), (full, f"+{full:.2g} nats or more"))
    return Tint(f"Change by {result.updates[place].name}", "change", "nats", full, CORRECT, WRONG, "", ends)


def _shown(completion: ChangedCompletion, place: int) -> dict[str, Any]:
    return {"tokens": completion.tokens, "change": completion.changes[place]}


def _facts(completion: ChangedCompletion) -> str:
    outcome = ("✓ correct", CORRECT) if completion.passed else ("✕ wrong", WRONG)
    chips = (
        chip(*outcome),
        chip(f"advantage {completion.advantage:+.2f}", RARENESS),
        chip(completion.prompt_id, NEUTRAL),
    )
    return f"<div>{' '.join(chips)}</div>{plain_box(completion.prompt)}"


def _rest(completion: ChangedCompletion) -> str:
    return f"<i>and {completion.left_out:,} more tokens</i>" if completion.left_out else ""


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _thousandths(value: float | None) -> str:
    return NONE if value is None else f"{1000 * value:+.3f}"
