"""A study's report as a document of headings, tables and figures, and the document as Markdown and as HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Link:
    """A text that leads to a job, or to a heading of the document (`#anchor`)."""

    text: str
    target: str


Cell = str | Link


@dataclass(frozen=True)
class Heading:
    """A heading. `level`: 1 is the title."""

    text: str
    anchor: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; all columns but the first are numbers or short words."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Drawing:
    """A figure of the document. `name`: end of its file name beside a Markdown report."""

    name: str
    svg: str
    caption: str


Part = Heading | Paragraph | Table | Drawing
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.8rem 0.3rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
td:nth-child(2) { white-space: normal; }
.wide { overflow-x: auto; }
a { color: #005a9c; }
svg { max-width: 100%; min-width: 36rem; height: auto; }
figure { margin: 1rem 0; overflow-x: auto; }
"""


def markdown(parts: Sequence[Part], figure_prefix: str) -> str:
    """Return the document as Markdown. Its figures are files: `figure_prefix`, their name, `.svg`."""
    return "\n\n".join(_markdown(part, figure_prefix) for part in parts) + "\n"


def _markdown(part: Part, figure_prefix: str) -> str:
    match part:
        case Heading():
            return f'<a id="{escape(part.anchor)}"></a>\n\n{"#" * part.level} {_plain(part.text)}'
        case Paragraph():
            return _plain(part.text)
        case Table():
            lines = [[_plain(text) for text in part.head], ["---", *["---:"] * (len(part.head) - 1)]]
            lines += [[_markdown_cell(cell) for cell in row] for row in part.rows]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Drawing():
            return f"![{_plain(part.caption)}]({figure_prefix}{part.name}.svg)"


def _markdown_cell(cell: Cell) -> str:
    return f"[{_plain(cell.text)}]({cell.target})" if isinstance(cell, Link) else _plain(cell)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def html(parts: Sequence[Part], title: str) -> str:
    """Return the document as one HTML page without scripts, with its figures in it."""
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head><body>'
    )
    return "\n".join([head, *(_html(part) for part in parts), "</body></html>\n"])


def _html(part: Part) -> str:
    match part:
        case Heading():
            return f'<h{part.level} id="{escape(part.anchor)}">{escape(part.text)}</h{part.level}>'
        case Paragraph():
            return f"<p>{escape(part.text)}</p>"
        case Table():
            return "\n".join(['<div class="wide"><table>', *_html_rows(part), "</table></div>"])
        case Drawing():
            return f"<figure>{part.svg}<figcaption>{escape(part.caption)}</figcaption></figure>"


def _html_rows(table: Table) -> Iterator[str]:
    yield f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in table.head)}</tr></thead><tbody>"
    for row in table.rows:
        yield f"<tr>{''.join(f'<td>{_html_cell(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody>"


def _html_cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f'<a href="{escape(cell.target)}">{escape(cell.text)}</a>'
    return escape(cell)
