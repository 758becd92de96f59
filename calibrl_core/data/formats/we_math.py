"""We-Math (arXiv 2407.01284): options in one text, the answer as a letter, the picture in `image_path`."""

from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import read_options, right_letter, with_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example


def read(row: Row) -> Example:
    """Return the row's example. `knowledge concept` is the data source.

    Raises:
        DataError: a cell is invalid.
    """
    options = read_options(row.cell("option"))
    known = right_letter(row.cell("answer", role="answer"), options)
    pid = row.text("ID")
    return make_example(
        row,
        id=f"{row.id}:{pid}" if pid else row.id,
        question=with_options(question_text(row.cell("question", role="question")), options, known),
        answer=known,
        images=row.images("image_path", "image"),
        data_source=row.text("knowledge concept") or None,
    )


NEEDS = (question("question"), Need(("option",)), answer("answer"))
FORMATS = (RowFormat("we-math", "We-Math's format", read, NEEDS, Rank.BENCHMARK),)
