"""Truths in the wrappers in which datasets publish them: numbers, `<answer>` elements, `####` lines and boxes."""

import re

from calibrl_core.data.row import Cell
from calibrl_core.data.row_checks import answer_text
from calibrl_core.verifiers.base import extract_answer, last_boxed

HASHES = "####"  # of GSM8K: the beginning of the last line
LONGEST_WRAPPER = 1_000_000  # characters of a text whose answer is searched for
_CALCULATION = re.compile(r"<<[^<>\n]*>>")  # annotations of GSM8K, such as 48/2=<<48/2=24>>24
_ONE_BOX = re.compile(r"\$?\s*\\(?:boxed|fbox)\s*\{.*\}\s*+\.?\s*+\$?", re.DOTALL)


def truth(cell: Cell) -> str:
    """Return the truth of a cell without its wrapper: the text of `<answer>`, of the line `#### ...` at the end, or of
    the one box that is the whole text. Empty, if the cell is.

    Raises:
        DataError: the cell is not finite, or neither text nor a number.
    """
    text = answer_text(cell)
    if len(text) > LONGEST_WRAPPER:
        return text
    inner = extract_answer(text) or _after_hashes(text)
    if inner is None and _ONE_BOX.fullmatch(text.strip()) and text.count("boxed") + text.count("fbox") == 1:
        inner = last_boxed(text)
    return inner or text


def stated_answer(solution: str) -> str | None:
    """Return the answer that a solution states in `<answer>`, after `####` or in its last box, or None. Only the end of
    a very long one is searched.
    """
    solution = solution[-LONGEST_WRAPPER:]
    return extract_answer(solution) or _after_hashes(solution) or last_boxed(solution) or None


def steps_before_hashes(solution: str) -> str:
    """Return the text before GSM8K's line `#### ...`, without its annotations of calculations."""
    return _CALCULATION.sub("", solution[: _hashes(solution)]).strip()


def composed_expert(thought: str, answer: str) -> str | None:
    """Return an expert from an explanation and the truth, in the form that the default rewards expect; None without
    one of them."""
    return f"<think>{thought.strip()}</think>\n<answer>{answer}</answer>" if thought.strip() and answer else None


def _after_hashes(text: str) -> str | None:
    start = _hashes(text)
    return None if start is None else text[start + len(HASHES) :].strip()


def _hashes(text: str) -> int | None:
    """Return the place of the first #### in the last line that is not empty, if text follows, or None. A regular
    expression would search a long line again from each of them.
    """
    end = len(text.rstrip())
    place = text.find(HASHES, text.rfind("\n", 0, end) + 1, end)
    return place if place >= 0 and text[place + len(HASHES) : end].strip() else None
