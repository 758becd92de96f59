"""Output of `calibrl what-if`: the compared updates, and the change of the tokens by quadrant."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import ComparedUpdate, WhatIf
from calibrl.views.terminal import plain, table_of

NONE = "–"


def what_if_page(result: WhatIf) -> RenderableType:
    """Return the compared updates and, if tokens have a gap, the changes by quadrant."""
    head = (
        f"step {result.step}, update {result.update}: {result.rollouts:,} rollouts, {result.tokens:,} tokens, "
        f"learning rate {result.learning_rate:g}"
    )
    parts: list[RenderableType] = [Text(head), Text(), _updates(result)]
    if any(result.quadrant_tokens.values()):
        parts += [Text(), Text("Mean change of log-probability by quadrant, 1e-3 nats per token"), _quadrants(result)]
    return Group(*parts)


def _updates(result: WhatIf) -> Table:
    table = table_of(
        "UPDATE~", ">GRADIENT", ">COSINE", ">WEIGHTS", ">COSINE", ">CHANGE", ">CORRECT", ">WRONG", "SETTINGS~"
    )
    for update in result.updates:
        numbers = (
            _number(update.gradient_norm, ".4g"),
            _number(update.gradient_cosine, "+.4f"),
            _number(update.update_norm, ".4g"),
            _number(update.update_cosine, "+.4f"),
            *(_thousandths(value) for value in (update.change, update.change_correct, update.change_wrong)),
        )
        table.add_row(Text(plain(update.name)), *numbers, Text(plain(_settings(update))))
    return table


def _quadrants(result: WhatIf) -> Table:
    names = [name for name, count in result.quadrant_tokens.items() if count]
    titles = (f">{name.replace('_', ' ').upper()} ({result.quadrant_tokens[name]:,})" for name in names)
    table = table_of("UPDATE~", *titles)
    for update in result.updates:
        values = (_thousandths(update.quadrants.get(name)) for name in names)
        table.add_row(Text(plain(update.name)), *values)
    return table


def _settings(update: ComparedUpdate) -> str:
    return ", ".join(f"{name}={_setting(value)}" for name, value in update.changes.items()) or NONE


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _thousandths(value: float | None) -> str:
    return NONE if value is None else f"{1000 * value:+.3f}"
