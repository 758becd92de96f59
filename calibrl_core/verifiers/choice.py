"""Answer reward: one of several options, by its letter or by its text."""

import re
from typing import Literal

from pydantic import field_validator

from calibrl_core.verifiers.base import NO_ANSWER, AnswerForm, AnswerVerifier, Decision, final_answer
from calibrl_core.verifiers.notation import LONGEST, strip_decoration
from calibrl_core.verifiers.readings import letters

_LETTER = re.compile(r"[(\[{ ]*([A-Za-z])[)\]}.: ]*")  # A   (A)   A.   [A]
_WITH_TEXT = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:]) ?(?=\S)(.*)", re.DOTALL)  # (A) 12 cm   A. 12 cm
_CALLED = re.compile(r"\A(?:the )?(?:correct )?(?:option|choice)(?: is)?:? ?(?:option |choice )?", re.IGNORECASE)
_ANOTHER = re.compile(
    r"(?:\b(?:or|and)|[,;/&|]) ?(?:[Oo]ption )?[A-Z](?![A-Za-z0-9])|\([A-Za-z]\)|(?<!\w)[A-Z][).:](?!\w)"
)
_OF_OTHERS = re.compile(r"(?:both|neither|either|all|none|only)\b", re.IGNORECASE)  # D. Both A and B


class ChoiceReward(AnswerVerifier):
    r"""1.0 if the answer names the option that the truth names, else 0.0.

    The truth is a letter (`B`, `(B)`), a letter with its option's text (`B. 12 cm`; then the text alone is right, too),
    or several letters (`ABD`; then the answer must name the same ones). The answer's letter can have other forms (`b`,
    `(B)`, `B.`, `\\boxed{B}`, `Option B`, `The answer is B`), and the option's text can follow. An answer that names
    another option, too, is wrong.
    """

    type: Literal["choice"] = "choice"

    @field_validator("answer_in")
    @classmethod
    def _names_an_option(cls, form: AnswerForm) -> AnswerForm:
        if form == "last":
            raise ValueError("a number names no option: use answer or boxed")
        return form

    def decide(self, completion: str, truth: str) -> Decision:
        answer = final_answer(completion, self.answer_in)
        if answer is None or max(len(answer), len(truth)) > LONGEST:
            return Decision(0.0, NO_ANSWER)
        return same_choice(answer, truth)


def same_choice(answer: str, truth: str) -> Decision:
    """Return 1.0 if both name the same options: by letter if both have one, else by the option's text."""
    asked = letters(strip_decoration(truth))
    if asked is not None:
        given = letters(without_call(strip_decoration(answer)), any_order=True)
        return Decision(float(given == asked), "the letters of all options are compared")
    (letter, text), (right_letter, right_text) = _read(answer), _read(truth)
    if letter is not None and right_letter is not None:
        hedges = _ANOTHER.search(text) and not _OF_OTHERS.match(text)
        rule = "the answer names another option too" if hedges else "the letters of the options are compared"
        return Decision(float(letter == right_letter and not hedges), rule)
    return Decision(
        float(text != "" and text.casefold() == right_text.casefold()), "the texts of the options are compared"
    )


def without_call(text: str) -> str:
    """Return an undecorated text without a lead such as `The correct option is`."""
    return _CALLED.sub("", text).strip()


def _read(text: str) -> tuple[str | None, str]:
    """Return the option's letter in upper case or None, and its text or an empty one."""
    text = without_call(strip_decoration(text))
    if match := _LETTER.fullmatch(text):
        return match[1].upper(), ""
    if match := _WITH_TEXT.fullmatch(text):
        return (match[1] or match[2]).upper(), match[3].strip()
    return None, text
