"""verl's schema, unchanged (https://verl.readthedocs.io/en/latest/preparation/prepare_data.html).

`prompt` (chat messages), `images`, `reward_model.ground_truth`, `data_source`, `extra_info`, and an expert: `solution`
and `pass_ratio` of CalibRL's published loader, or `target` of LUFFY (arXiv 2504.14945).
"""

from typing import Any

from calibrl_core.data.conversations import VERL_ROLES, expert_of, read_conversation, with_reasoning
from calibrl_core.data.formats.base import Need, Rank, RowFormat, make_example, question
from calibrl_core.data.image_cells import parsed_text
from calibrl_core.data.options import with_row_options
from calibrl_core.data.row import Cell, Row
from calibrl_core.data.row_checks import pass_ratio
from calibrl_core.data.schema import DataError, Example


def read(row: Row) -> Example:
    """Return the row's example. A pass ratio of 0 or less drops the expert.

    Raises:
        DataError: a cell is invalid.
    """
    found = read_conversation(row, row.cell("prompt", role="question"), VERL_ROLES, answered=False)
    expert = expert_of(row, row.cell("solution", "target", "expert", role="expert"))
    asked, known = with_row_options(row, found.question, _ground_truth(row))
    ratio = pass_ratio(row.cell("pass_ratio").value)
    return make_example(
        row,
        id=_id(row),
        question=asked,
        answer=known,
        images=found.images,
        expert=None if ratio is not None and ratio <= 0 else with_reasoning(row, expert, known),
        earlier=found.earlier,
    )


def _ground_truth(row: Row) -> Cell:
    """Return the cell of `reward_model.ground_truth`, the first entry of a list, or of the column that is named."""
    if named := row.columns.named("answer"):
        return row.cell(named)
    column, model = row.cell("reward_model")
    model = parsed_text(model) if isinstance(model, str) else model
    if not isinstance(model, dict):
        raise DataError(f"column {column!r} must hold an object with `ground_truth`")
    value: Any = model.get("ground_truth")
    return Cell(f"{column}.ground_truth", value[0] if isinstance(value, list) and value else value)


def _id(row: Row) -> str:
    extra = row.cell("extra_info").value
    index = extra.get("index") if isinstance(extra, dict) else None
    return row.id if index is None else f"{row.id}:{index}"  # an index alone is not unique in merged files


NEEDS = (question("prompt"), Need(("reward_model",)))
NO_ANSWER = "column 'reward_model.ground_truth' must hold the answer, as text or a number: a reward compares with it"
FORMATS = (
    RowFormat("verl", "verl's format", read, NEEDS, Rank.TRAINER, no_answer=NO_ANSWER),
    RowFormat("luffy", "LUFFY's format", read, NEEDS, Rank.TRAINER, marks=(("target",),), no_answer=NO_ANSWER),
)
