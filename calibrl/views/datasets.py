"""Output of the commands of files: data in, renderables out."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import Checkpoint, Dataset, PreviewRow
from calibrl.schemas.byte_counts import file_size
from calibrl.views.terminal import plain

NONE = "–"


def dataset_table(datasets: Sequence[Dataset]) -> Table:
    """Return datasets as a table, in the given order."""
    table = _table("ID", "NAME", "PROJECT", "FROM", ">ROWS", ">SIZE", "EXPERTS", "ADDED")
    for one in datasets:
        rows = NONE if one.rows is None else f"{one.rows:,}"
        size = NONE if one.bytes is None else file_size(one.bytes)
        experts = NONE if one.has_experts is None else "yes" if one.has_experts else "no"
        added = one.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(str(one.id), Text(one.name), one.project, _from(one), rows, size, experts, added)
    return table


def dataset_page(dataset: Dataset, rows: Sequence[PreviewRow]) -> RenderableType:
    """Return the properties of a dataset and its first rows."""
    facts = Table.grid(padding=(0, 2))
    values = {
        "id": str(dataset.id),
        "name": dataset.name,
        "project": dataset.project,
        "user": plain(dataset.user),
        "from": _from(dataset),
        "rows": "" if dataset.rows is None else f"{dataset.rows:,}",
        "size": "" if dataset.bytes is None else file_size(dataset.bytes),
        "sha256": dataset.sha256 or "",
        "columns": plain(", ".join(dataset.has_columns or [])),
        "row format": dataset.row_format or "",
        "unused columns": plain(", ".join(dataset.unused_columns or [])),
    }
    for fact, value in values.items():
        if value:
            facts.add_row(Text(fact, style="dim"), Text(value))
    shown = _table(">ROW", "QUESTION", "ANSWER", "EXPERT", ">IMAGES")
    for row in rows:
        texts = (Text(plain(text)) for text in (row.question, row.answer, row.expert or ""))
        shown.add_row(str(row.row), *texts, str(row.image_count))
    return Group(facts, Text(), shown) if rows else facts


def checkpoint_table(checkpoints: Sequence[Checkpoint]) -> Table:
    """Return the checkpoints of a job as a table."""
    table = _table(">STEP", "BEST", "WRITTEN", "PATH")
    for one in checkpoints:
        written = one.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(str(one.step), "best" if one.best else "", written, Text(plain(one.path)))
    return table


def _from(dataset: Dataset) -> str:
    return dataset.hub.label if dataset.hub else str(dataset.format)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.strip(">"), justify="right" if column[0] == ">" else "left")
    return table
