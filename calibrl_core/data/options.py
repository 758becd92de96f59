"""Options of multiple-choice questions: read from the forms in which datasets publish them, and put into the question.

The answer becomes the letter of the right option, for the verifiers `choice` and `math`.
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from calibrl_core.data.image_cells import parsed_text
from calibrl_core.data.row import Cell, Row, has_content
from calibrl_core.data.row_checks import answer_text, only_entry, plain_text, whole_number
from calibrl_core.data.schema import DataError
from calibrl_core.data.truths import truth

OPTION_COLUMNS = ("options", "choices", "option")
_MARK = re.compile(r"(?:^|(?<=[\s;,]))\(?([A-Z])\s*[.):．：、]\s*")  # A. (A) A) A:
_LETTER = re.compile(r"\(?\s*([A-Z])\s*(?:[).:．：、](?:\s.*)?|\)?)", re.DOTALL)  # B   (B)   B.   B. 5 cm
_LETTERS = re.compile(r"[A-Z](?:\s*+(?:,|;|、|&|and)?\s*+[A-Z])+")  # ABD   A, C   A and C
_COLUMN = re.compile(r"([A-J])|(?:option|choice)_?([A-Ja-j])")  # with one option: A   option_a   choiceB
_AFTER_LETTER = r"[\s.):．：、}~\\$]+"  # A. 3   (A) 3   \textbf{(A)}~3
LONGEST_LISTING = 20_000  # characters of a question that can list its options itself
LONGEST_FOLDED = 100_000  # characters; the words of a longer text need too much memory


def with_row_options(row: Row, question: str, cell: Cell) -> tuple[str, str]:
    """Return the question with the options of the row, and the letter of the right one. Without options: the question,
    and the truth of the cell.

    Raises:
        DataError: the cell names no option, or the columns hold something else than options.
    """
    options = row_options(row, cell.value)
    if not options:
        return question, truth(cell)
    known = right_letter(cell, options)
    return with_options(question, options, known), known


def row_options(row: Row, answer: Any) -> list[str]:
    """Return the options in one of OPTION_COLUMNS, or in a column each (`A`, `B` ... or `option_a` ...) if the answer
    is letters of such columns. Empty: the row has none.

    Raises:
        DataError: a column holds something else than options.
    """
    if options := read_options(row.cell(*OPTION_COLUMNS)):
        return options
    named = ((_COLUMN.fullmatch(name), name) for name, value in row.values.items() if has_content(value))
    columns = {(match[1] or match[2]).upper(): name for match, name in named if match}
    letters = list(takewhile(columns.__contains__, ascii_uppercase))
    known = set(_named_letters(", ".join(map(str, answer)) if isinstance(answer, list) else str(answer)))
    if len(letters) < 2 or not known or not known <= set(letters):
        return []
    row.used.update(columns[letter] for letter in letters)
    return [plain_text(row.values[columns[letter]]) for letter in letters]


def read_options(cell: Cell) -> list[str]:
    """Return the options of a cell, without letters of their own: a list, an object by letter, an object with `text`
    and `label`, such a value as JSON or Python text, or a text "A. ...; B. ...". An empty cell has none.

    Raises:
        DataError: the cell holds fewer than 2 or more than 26 options, or something else.
    """
    value = parsed_text(cell.value) if isinstance(cell.value, str) else cell.value
    if not has_content(value):
        return []
    if isinstance(value, dict):
        value = _of_object(value)
    options = _split(value) if isinstance(value, str) else _of_list(value) if isinstance(value, list | tuple) else []
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise DataError(
            f"column {cell.column!r} must hold a list of at least two options, and at most 26 options; rename it if it "
            "holds something else"
        )
    return options


def with_options(question: str, options: Sequence[str], answer: str = "") -> str:
    """Return the question with its options, as `list_options`, and the request for a letter, or for several ones."""
    several = "letters of all right choices" if len(answer.split(",")) > 1 else "letter of the right choice"
    return f"{list_options(question, options)}\nAnswer with the {several}."


def list_options(question: str, options: Sequence[str]) -> str:
    """Return the question with its options, lettered from A, one per line, unless it lists them already."""
    pairs = list(zip(ascii_uppercase, options, strict=False))
    if len(question) <= LONGEST_LISTING and all(_lists(question, letter, option) for letter, option in pairs):
        return question
    return "\n".join([question, "Choices:", *(f"({letter}) {option}" for letter, option in pairs)])


def _lists(question: str, letter: str, option: str) -> bool:
    if len(option) > len(question):
        return False
    words = r"\s+".join(map(re.escape, option.split()))
    return re.search(f"(?<![A-Za-z]){letter}{_AFTER_LETTER}{words}", question) is not None


def right_letter(cell: Cell, options: Sequence[str]) -> str:
    """Return the letter of the right option, or letters joined by commas. The cell holds letters, an index from 0, or
    the text of an option; a letter is preferred to a text, and a text to an index. Empty, if the cell is.

    Raises:
        DataError: the cell names no option, or an index and another option's text alike.
    """
    value = only_entry(cell.value)
    values = value if isinstance(value, list | tuple) else [value]
    return ", ".join(_right_letter(cell._replace(value=one), options) for one in values)


def _right_letter(cell: Cell, options: Sequence[str]) -> str:
    if (number := whole_number(cell.value)) is not None:
        return _by_number(cell, number, options)
    answer = truth(cell).strip()
    if not answer:
        return ""
    letters = ascii_uppercase[: len(options)]
    folded = _folded(answer)
    texts = [index for index, option in enumerate(options) if _folded(option) == folded]
    if (found := _LETTER.fullmatch(answer)) and found[1] in letters and (len(answer) == 1 or len(texts) != 1):
        return found[1]
    if len(texts) == 1:
        return letters[texts[0]]
    several = _named_letters(answer)
    if several and set(several) <= set(letters) and len(set(several)) == len(several):
        return ", ".join(several)
    if answer.isdecimal() and int(answer) < len(options):
        return letters[int(answer)]
    raise _unknown(cell.column, answer, options)


def letter_at(cell: Cell, options: Sequence[str]) -> str:
    """Return the letter of the option at an index from 0. Empty, if the cell is.

    Raises:
        DataError: the cell is no index of an option.
    """
    index = whole_number(cell.value)
    if cell.value is None:
        return ""
    if index is None or not 0 <= index < len(options):
        raise DataError(
            f"column {cell.column!r} ({cell.value!r}) must be the index of a choice, from 0 to {len(options) - 1}"
        )
    return ascii_uppercase[index]


def letter_of_text(cell: Cell, options: Sequence[str]) -> str:
    """Return the letter of the option with this text. Empty, if the cell is.

    Raises:
        DataError: no option has it.
    """
    answer = answer_text(cell)
    if not answer:
        return ""
    if answer not in options:
        raise DataError(f"column {cell.column!r} ({answer!r}) must be one of the choices")
    return ascii_uppercase[options.index(answer)]


def _named_letters(answer: str) -> list[str]:
    """Return the letters that an answer consists of."""
    text = answer.strip()
    if one := _LETTER.fullmatch(text):
        return [one[1]]
    return re.findall("[A-Z]", text) if _LETTERS.fullmatch(text) else []


def _by_number(cell: Cell, number: int, options: Sequence[str]) -> str:
    column, texts = cell.column, {str(number), plain_text(cell.value)}
    same = [index for index, option in enumerate(options) if _folded(option) in texts]
    at = [number] if 0 <= number < len(options) else []
    if len(set(same + at)) > 1:
        raise DataError(
            f"column {column!r} ({number}) is the index of one option and the text of another: write the letter"
        )
    if not same + at:
        raise _unknown(column, number, options)
    return ascii_uppercase[(same + at)[0]]


def _unknown(column: str, answer: Any, options: Sequence[str]) -> DataError:
    return DataError(
        f"column {column!r} ({answer!r}) must be the letter, the text or the index (from 0) of one of the "
        f"{len(options)} choices"
    )


def _of_object(value: dict[str, Any]) -> Any:
    """Return the options of {"A": ..., "B": ...} or {"label": [...], "text": [...]} as a list, else the value."""
    texts = value.get("text")
    if isinstance(texts, list):
        return texts
    filled = {key.strip().strip("().").upper(): option for key, option in value.items() if has_content(option)}
    keys = sorted(filled)
    return [filled[key] for key in keys] if keys == list(ascii_uppercase[: len(keys)]) else value


def _of_list(values: Sequence[Any]) -> list[str]:
    """Return options as texts. Letters of their own, A, B ... in order, are removed."""
    texts = [plain_text(_inner(value)).strip() for value in values if value is not None]
    marks = [_MARK.match(text) for text in texts]
    own = [mark[1] for mark in marks if mark]
    if own == list(ascii_uppercase[: len(texts)]) and all(
        _rest(text, mark) for text, mark in zip(texts, marks, strict=True)
    ):
        return [_rest(text, mark) for text, mark in zip(texts, marks, strict=True)]
    return texts


def _inner(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and has_content(value.get("text")) else value


def _rest(text: str, mark: re.Match[str] | None) -> str:
    return text[mark.end() :].strip() if mark else text


def _split(text: str) -> list[str]:
    """Return the parts of a text between the marks A., B. ... in order; without such marks, its lines."""
    marks: list[re.Match[str]] = []
    for mark in _MARK.finditer(text):
        if len(marks) < len(ascii_uppercase) and mark[1] == ascii_uppercase[len(marks)]:
            marks.append(mark)
    if len(marks) < 2:
        return [line.strip() for line in text.splitlines() if line.strip()]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [text[mark.end() : end].strip().rstrip(";,").strip() for mark, end in zip(marks, ends, strict=True)]


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold() if len(text) <= LONGEST_FOLDED else text
