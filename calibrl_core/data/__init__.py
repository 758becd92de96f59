"""Datasets: `load` reads any source that a config can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from calibrl_core.data.schema import BuiltinData, DataSource, Example

if TYPE_CHECKING:
    from calibrl_core.data.row_cache import RowCache
    from calibrl_core.data.source_facts import SourceFacts


def load(
    source: DataSource, facts: SourceFacts | None = None, cache: RowCache | None = None, *, answers: bool = True
) -> Sequence[Example]:
    """Return all examples of a source, in its order.

    Args:
        facts: receives the format and the columns of a file or a dataset of the hub.
        cache: where the rows are kept, and read from when they are used. None: all rows are in memory.
        answers: rows need an answer.

    Raises:
        DataError: rows are invalid; the message names each of them.
        OSError: files.
    """
    from calibrl_core.data import files
    from calibrl_core.data.builtin import digits, geometry

    if not isinstance(source, BuiltinData):
        load_rows = files.load if cache is None else cache.load
        return load_rows(source, facts, answers=answers)
    return digits.load(source) if source.builtin == "digits" else geometry.load(source)
