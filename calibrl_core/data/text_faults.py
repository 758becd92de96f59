"""Texts of rows that no tokenizer, file or database can hold: halves of characters, and NUL."""

import json
import re
from collections.abc import Iterator

from calibrl_core.data.schema import DataError, Example

_HALF = re.compile("[\ud800-\udfff]")  # of a pair in UTF-16; alone it is no character


def check_texts(example: Example) -> None:
    """Check all texts of an example, with the columns that rewards see.

    Raises:
        DataError: a text holds half of a character, or a NUL.
    """
    for name, text in _texts(example):
        if half := _half(text):
            raise DataError(
                f"{name} holds half of a character ({half!a}), as of an emoji that was cut: repair the text or "
                "remove the row"
            )
        if "\0" in text:
            raise DataError(f"{name} holds a NUL character (\\u0000): remove it from the text")


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    yield "the question", example.question
    yield "the answer", example.answer
    yield "the expert", example.expert or ""
    for turn in example.earlier:
        yield f"an earlier message of the {turn.role}", turn.text
    yield "the data source", example.data_source or ""
    yield "the ID of the row", example.id
    for column, value in example.item.items():
        yield f"column {column!a}", json.dumps([column, value], ensure_ascii=False)


def _half(text: str) -> str | None:
    """Return the first half of a character in a text, or None."""
    try:
        text.encode()
    except UnicodeEncodeError:
        found = _HALF.search(text)
        return found and found[0]
    return None
