"""MMMU (arXiv 2311.16502): images in `image_1` ... `image_7`, options as the text of a Python list."""

import re

from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.image_cells import parsed_text
from calibrl_core.data.options import read_options, right_letter, with_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example
from calibrl_core.data.truths import composed_expert, truth

_TAG = re.compile(r"<image (\d+)>")


def read(row: Row) -> Example:
    """Return the row's example. `explanation` with the answer is the expert; `subfield` is the data source.

    An open question has no options. Its answer can be a list of equal answers, of which the first is used.

    Raises:
        DataError: a cell is invalid.
    """
    asked, cell = question_text(row.cell("question", role="question")), row.cell("answer", role="answer")
    options = read_options(row.cell("options"))
    if options:
        known = right_letter(cell, options)
        asked = with_options(asked, options, known)
    else:
        value = parsed_text(cell.value) if isinstance(cell.value, str) and cell.value.startswith("[") else cell.value
        known = truth(cell._replace(value=value[0] if isinstance(value, list) and value else value))
    pid = row.text("id")
    return make_example(
        row,
        id=f"{row.id}:{pid}" if pid else row.id,
        question=_renumbered(row, asked),
        answer=known,
        images=row.images(),
        expert=composed_expert(row.text("explanation"), known),
        data_source=row.text("subfield") or None,
    )


def _renumbered(row: Row, text: str) -> str:
    """Return a text whose tags count the images of the row: without image_1, `<image 2>` is the first."""
    places = {number: place for place, (number, _) in enumerate(row.numbered_images(), start=1)}
    return _TAG.sub(lambda tag: f"<image {places.get(int(tag[1]), tag[1])}>", text)


NEEDS = (question("question"), Need(("options",)), answer("answer"))
FORMATS = (
    RowFormat(
        "mmmu", "MMMU's format", read, NEEDS, Rank.BENCHMARK, marks=(("image_1", "subfield", "topic_difficulty"),)
    ),
)
