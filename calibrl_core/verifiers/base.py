"""Base of all reward verifiers. A verifier is plain Python: it maps a completion and the truth to a score from 0.0 to
1.0.
"""

import re
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from calibrl_core.settings_base import StrictSettings

AnswerForm = Literal["answer", "boxed", "last"]
# 7   -3.5   1,200   3/4   50%; a minus between two terms is none of the number
_NUMBER = re.compile(r"(?:(?<![\w)}.])[-\u2212])?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)(?:/\d+)?(?: ?%)?")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:\{|(?P<content>-?\d(?:[\d.,]*\d)?|[A-Za-z](?![A-Za-z])))")
_BRACE = re.compile(r"[{}]")


class NeedsWorker(NamedTuple):
    """A verdict that only a worker process may compute, since it can take long or crash its process."""

    text: str
    truth: str


class Verifier(StrictSettings):
    """Settings of one reward term."""

    judges_answer: ClassVar[bool] = True  # False: it judges the format only and has no effect on `passed`

    type: str
    weight: float = Field(1.0, ge=0, le=100, description="Factor of this score in the summed reward.")
    time_limit_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Maximum seconds per score in the verifier process. A score that takes longer is 0.",
    )

    @property
    def label(self) -> str:
        """Return the name of this verifier in metrics."""
        return self.type

    def score(self, completion: str, truth: str) -> float | NeedsWorker:
        """Return 0.0 (wrong) to 1.0 (right), in time linear in the text, or the arguments of `judge` for a worker
        process.
        """
        raise NotImplementedError

    def judge(self, text: str, truth: str) -> float:
        """Return the verdict that `score` deferred. Called in worker processes only."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Load everything that is slow to load. Called once in each worker process, before its first `judge`."""


class AnswerVerifier(Verifier):
    """Settings of a reward term that looks for the answer in the completion."""

    answer_in: AnswerForm = Field(
        "answer",
        description="Place of the answer. answer: the last <answer> element. boxed: the last \\boxed{}. last: the last "
        "number of the completion. The same for all verifiers of a job.",
    )


def answer_form(rewards: Iterable[Verifier]) -> AnswerForm:
    """Return where the verifiers of a run look for the answer."""
    return next((reward.answer_in for reward in rewards if isinstance(reward, AnswerVerifier)), "answer")


def follows_format(completion: str, form: AnswerForm = "answer") -> bool:
    """Return if the completion reasons in `<think>`, and then answers.

    The form `answer` requires exactly `<think>reasoning</think><answer>answer</answer>`, each tag once. The others
    require `<think>reasoning</think>`, each tag once, and an answer of their form in the text behind it.
    """
    text = completion.strip()
    tags = ("<think>", "</think>", "<answer>", "</answer>")[: 4 if form == "answer" else 2]
    if not (text.startswith(tags[0]) and all(text.count(tag) == 1 for tag in tags)):
        return False
    thought, _, rest = text.removeprefix(tags[0]).partition(tags[1])
    if form != "answer":
        return bool(thought.strip() and final_answer(rest, form))
    between, answer_tag, answer = rest.removesuffix(tags[3]).partition(tags[2])
    return bool(text.endswith(tags[3]) and thought.strip() and answer_tag and answer.strip() and not between.strip())


def extract_answer(completion: str) -> str | None:
    """Return the text of the last `<answer>` element, or None without one."""
    start = completion.rfind("<answer>", 0, max(completion.rfind("</answer>"), 0))
    return completion[start + len("<answer>") :].partition("</answer>")[0].strip() if start >= 0 else None


def final_answer(completion: str, form: AnswerForm = "answer") -> str | None:
    """Return the answer, or None without one.

    `answer`: the text of the last `<answer>` element; if it contains `\\boxed{}`, their content.
    `boxed`: the content of the last `\\boxed{}` of the completion. `last`: its last number.
    """
    if form == "boxed":
        return last_boxed(completion)
    if form == "last":
        numbers = _NUMBER.findall(completion)
        return numbers[-1] if numbers else None
    answer = extract_answer(completion)
    return None if answer is None else strip_boxed(answer)


def last_boxed(text: str) -> str | None:
    """Return the content of the last `\\boxed{}`, or None if there is none or its braces are not balanced."""
    found = _boxes(text, last=True)
    return found[0] if found else None


def strip_boxed(text: str) -> str:
    """Return the content of all `\\boxed{}` with balanced braces, different ones joined by commas; without one, the
    stripped text.
    """
    return ", ".join(dict.fromkeys(_boxes(text))) or text.strip()


def _boxes(text: str, *, last: bool = False) -> list[str]:
    """Return the contents of the outermost boxes with balanced braces; `last`: only of the last box."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return []
    closes, open_ = dict[int, int](), list[int]()  # place of the closing brace per opening one
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            open_.append(match.start())
        elif open_:
            closes[open_.pop()] = match.start()
    found, end = list[str](), 0
    for box in boxes[-1:] if last else boxes:
        if box["content"]:
            found.append(box["content"])
        elif box.start() >= end and (closed := closes.get(box.end() - 1)):
            found.append(text[box.end() : closed].strip())
            end = closed
    return found
