"""ScienceQA (arXiv 2209.09513): the answer is the index of a choice, `hint` is the context of the question."""

from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import letter_at, read_options, with_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example
from calibrl_core.data.truths import composed_expert


def read(row: Row) -> Example:
    """Return the row's example. `lecture` and `solution` with the answer are the expert; `topic` is the data source.

    Raises:
        DataError: a cell is invalid.
    """
    asked, hint = question_text(row.cell("question", role="question")), row.text("hint")
    options = read_options(row.cell("choices"))
    known = letter_at(row.cell("answer", role="answer"), options)
    steps = [text for text in (row.text("lecture"), row.text("solution")) if text]
    return make_example(
        row,
        question=with_options(f"{hint}\n{asked}" if hint else asked, options),
        answer=known,
        images=row.images(),
        expert=composed_expert("\n".join(steps), known),
        data_source=row.text("topic") or None,
    )


NEEDS = (question("question"), Need(("choices",)), answer("answer"))
CONTEXT, SUBJECT = ("hint", "lecture"), ("subject", "topic", "skill", "grade")
FORMATS = (
    RowFormat("scienceqa", "ScienceQA's format", read, NEEDS, Rank.BENCHMARK, (CONTEXT, SUBJECT)),
    RowFormat("scienceqa", "ScienceQA's format", read, NEEDS, Rank.BENCHMARK, (CONTEXT,)),
)
