"""MMK12 (of MM-Eureka, arXiv 2503.07365): the plain format with `subject`; or `conversations` with `image_urls`."""

from dataclasses import replace

from calibrl_core.data.formats import plain
from calibrl_core.data.formats.base import Rank, RowFormat
from calibrl_core.data.row import Row
from calibrl_core.data.schema import Example


def read(row: Row) -> Example:
    """Return the row's example. `id` is a part of its ID, `subject` the data source.

    Raises:
        DataError: a cell is invalid.
    """
    number = row.text("id")
    return replace(
        plain.read(row), id=f"{row.id}:{number}" if number else row.id, data_source=row.text("subject") or None
    )


NEEDS = plain.FORMATS[0].needs
FORMATS = (RowFormat("mmk12", "MMK12's format", read, NEEDS, Rank.BENCHMARK, marks=(("subject",), ("image",))),)
