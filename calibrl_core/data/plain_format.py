"""Rows of the plain format: `question`, `image` or `images`, `answer`, `expert`, under these or other names; and
`pass_ratio`.
"""

from calibrl_core.data.images import read_images
from calibrl_core.data.row_checks import Row, answer_text, pass_ratio, question_text
from calibrl_core.data.schema import Columns, DataError, Example


def read(row: Row) -> Example:
    """Return the row's example.

    Raises:
        DataError: a cell is invalid.
    """
    values, columns = row.values, row.columns
    expert = values.get(columns.expert)
    if expert is not None and not isinstance(expert, str):
        raise DataError(f"column {columns.expert!r} must hold text or be empty")
    images = values.get(columns.images)
    if images is None and columns.images == Columns().images:
        images = values.get("image")
    return Example(
        id=row.id,
        question=question_text(row, columns.question),
        answer=answer_text(values.get(columns.answer), columns.answer),
        images=read_images(images, row.folder),
        expert=expert or None,
        pass_ratio=pass_ratio(values.get("pass_ratio")),
    )
