"""ViRL39K (of VL-Rethinker, arXiv 2504.08837): the plain format with `image` as a list of paths, and boxed answers."""

from dataclasses import replace

from calibrl_core.data.formats import plain
from calibrl_core.data.formats.base import Rank, RowFormat
from calibrl_core.data.row import Row
from calibrl_core.data.schema import Example


def read(row: Row) -> Example:
    """Return the row's example. `qid` is a part of its ID, `category` the data source.

    Raises:
        DataError: a cell is invalid.
    """
    qid = row.text("qid")
    source = row.text("category", "source") or None
    return replace(plain.read(row), id=f"{row.id}:{qid}" if qid else row.id, data_source=source)


NEEDS = plain.FORMATS[0].needs
FORMATS = (RowFormat("virl39k", "ViRL39K's format", read, NEEDS, Rank.BENCHMARK, marks=(("qid",),)),)
