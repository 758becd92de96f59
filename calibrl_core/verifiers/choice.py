"""Answer reward: one of several options, by its letter or by its text."""

import re
from typing import Literal

from calibrl_core.verifiers.base import Verifier, final_answer
from calibrl_core.verifiers.notation import LONGEST, bare

_LETTER = re.compile(r"[(\[{ ]*([A-Za-z])[)\]}.: ]*")  # A   (A)   A.   [A]
_WITH_TEXT = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:]) ?(?=\S)(.*)", re.DOTALL)  # (A) 12 cm   A. 12 cm
_CALLED = re.compile(r"\A(?:the )?(?:correct )?(?:option|choice)(?: is)?:? ?(?:option |choice )?", re.IGNORECASE)
_ANOTHER = re.compile(
    r"(?:\b(?:or|and)|[,;/&|]) ?(?:[Oo]ption )?[A-Z](?![A-Za-z0-9])|\([A-Za-z]\)|(?<!\w)[A-Z][).:](?!\w)"
)


class ChoiceReward(Verifier):
    r"""Score 1.0 if the answer names the same option as the reference answer; else 0.0.

    The reference answer is a letter (`B`, `(B)`), or a letter with the text of its option (`B. 12 cm`); then the text
    alone is also right. The letter of the answer can have another form (`b`, `(B)`, `B.`, `\boxed{B}`, `Option B`,
    `The answer is B`) and can be followed by the text of its option. An answer that names two options is wrong.
    """

    type: Literal["choice"] = "choice"

    def score(self, completion: str, truth: str) -> float:
        answer = final_answer(completion)
        if answer is None or max(len(answer), len(truth)) > LONGEST:
            return 0.0
        return float(same_choice(answer, truth))


def same_choice(answer: str, truth: str) -> bool:
    """Whether both name one option: by letter where both have one, else by the option's text."""
    (letter, text), (right_letter, right_text) = _read(answer), _read(truth)
    if letter is not None and right_letter is not None:
        return letter == right_letter and not _ANOTHER.search(text)
    return text != "" and text.casefold() == right_text.casefold()


def _read(text: str) -> tuple[str | None, str]:
    """The option's letter in upper case, if there is one, and its text, if there is one."""
    text = _CALLED.sub("", bare(text)).strip()
    if found := _LETTER.fullmatch(text):
        return found[1].upper(), ""
    if found := _WITH_TEXT.fullmatch(text):
        return (found[1] or found[2]).upper(), found[3].strip()
    return None, text
