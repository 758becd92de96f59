"""Strings that end a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SPARE_TOKENS = 4  # decoding can change the text of the first tokens: a part of a character, a leading space


class StopStrings:
    """Finds completions that end with a stop string.

    A token has one byte of text at least. A stop string that the last token completes therefore lies in as many tokens
    as the string has bytes, so only these are decoded.
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str]) -> None:
        self._tokenizer, self._strings = tokenizer, strings
        self.tail = max((len(string.encode()) for string in strings), default=0) + _SPARE_TOKENS  # tokens to look at

    def __bool__(self) -> bool:
        return bool(self._strings)

    def end(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """Return for each row of tokens if a stop string is in the text of its last `tail` tokens.

        Asked after every token, this is true for the first time at the token that completes the string.
        """
        texts = self._tokenizer.batch_decode(
            [row[-self.tail :] for row in rows], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return [any(string in text for string in self._strings) for text in texts]
