"""Rows of published benchmarks, in their own columns: MathVista (arXiv 2310.02255) and Geometry3K (arXiv 2105.04165).

Neither has experts. For multiple choice, the options are added to the question and the answer is the letter of the
right one, for the verifier `choice`.
"""

from typing import Any

from calibrl_core.data.images import read_images
from calibrl_core.data.row_checks import Row, answer_text, letter, question_text, with_options
from calibrl_core.data.schema import DataError, Example


def mathvista(row: Row) -> Example:
    """Convert a row with `question`, `question_type` and `answer`.

    Optional columns: `pid`, `image` (a path), `decoded_image`, `choices`, `unit`, `precision`, `answer_type`,
    `metadata`. The example's data source is `metadata.task`.

    Raises:
        DataError: a cell is invalid.
    """
    values = row.values
    question, answer = question_text(row, "question"), values.get("answer")
    if answer is None or answer == "":
        raise DataError("column 'answer' is empty: MathVista does not publish the answers of `test`; use `testmini`")
    if values.get("unit"):
        question = f"{question} (Unit: {values['unit']})"
    if values["question_type"] == "multi_choice":
        options = _options(values.get("choices"))
        answer = answer_text(answer, "answer")
        if answer not in options:
            raise DataError(f"column 'answer' ({answer!r}) must be one of the choices")
        question, answer = with_options(question, options), letter(options.index(answer))
    elif hint := _form_of_answer(values):
        question = f"{question}\n{hint}"
    metadata, pid = values.get("metadata"), values.get("pid")
    images = values.get("decoded_image")
    return Example(
        id=row.id if pid is None else f"{row.id}:{pid}",
        question=question,
        answer=answer_text(answer, "answer"),
        images=read_images(values.get("image") if images is None else images, row.folder),
        data_source=metadata.get("task") if isinstance(metadata, dict) else None,
    )


def _form_of_answer(values: dict[str, Any]) -> str:
    """Return the required form of an answer in words, as in MathVista's own prompts; without it no answer would be
    equal.
    """
    kind, precision = values.get("answer_type"), values.get("precision")
    if kind == "integer":
        return "Answer with a whole number."
    if kind == "float" and isinstance(precision, int | float):
        return f"Round the answer to {precision:.0f} decimal place{'' if precision == 1 else 's'}."
    if kind == "list":
        return "Answer with a list, such as [1, 2, 3]."
    return ""


def geometry3k(row: Row) -> Example:
    """Convert a row with `problem` (or Inter-GPS's `problem_text`), `answer` and `images` (or `image`).

    With `choices`, the answer is a letter already, and `problem_type_goal` gives the data source.

    Raises:
        DataError: a cell is invalid.
    """
    values = row.values
    question = question_text(row, "problem" if "problem" in values else "problem_text")
    answer = answer_text(values.get("answer"), "answer")
    if values.get("choices"):
        options = _options(values["choices"])
        answer = answer.strip().strip("()").upper()
        if answer not in map(letter, range(len(options))):
            raise DataError(f"column 'answer' ({answer!r}) must be the letter of one of the {len(options)} choices")
        question = with_options(question, options)
    goals = values.get("problem_type_goal")
    images = values.get("images")
    return Example(
        id=row.id,
        question=question,
        answer=answer,
        images=read_images(values.get("image") if images is None else images, row.folder),
        data_source=", ".join(map(str, goals)) if isinstance(goals, list) and goals else None,
    )


def _options(choices: Any) -> list[str]:
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError("column 'choices' must hold a list of at least two options")
    return [str(choice) for choice in choices]
