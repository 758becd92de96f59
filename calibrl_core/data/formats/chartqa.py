"""ChartQA (arXiv 2203.10244): `query` and `label`, or `question` and `answer` with `type`."""

from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import with_row_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example
from calibrl_core.data.truths import truth

_WRITERS = {"0": "human", "1": "machine"}


def read(row: Row) -> Example:
    """Return the row's example. Several labels are joined by commas. The data source is who wrote the question.

    Raises:
        DataError: a cell is invalid.
    """
    cell = row.cell("label", "answer", role="answer")
    labels = cell.value if isinstance(cell.value, list) and cell.value else [cell.value]
    cell = cell._replace(value=", ".join(truth(cell._replace(value=label)) for label in labels))
    asked, known = with_row_options(row, question_text(row.cell("query", "question", role="question")), cell)
    writer = row.text("type", "human_or_machine")
    return make_example(
        row,
        question=asked,
        answer=known,
        images=row.images(),
        data_source=_WRITERS.get(writer, writer) or None,
    )


IMAGE = Need(("image", "imgname"), "images")
TITLE = "ChartQA's format"
FORMATS = (
    RowFormat("chartqa", TITLE, read, (question("query"), answer("label")), Rank.BENCHMARK),
    RowFormat("chartqa", TITLE, read, (question("question"), answer("answer"), IMAGE), Rank.BENCHMARK, (("type",),)),
)
