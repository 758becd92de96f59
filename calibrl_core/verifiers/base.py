"""Base of all reward verifiers. A verifier maps what it sees of a completion to a score from 0.0 to 1.0."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from calibrl_core.settings.base import StrictSettings
from calibrl_core.verifiers.reward_input import RewardInput

OnFailure = Literal["zero", "drop_group", "stop"]
AnswerForm = Literal["answer", "boxed", "last"]
# 7   -3.5   1,200   3/4   50%; a minus between two terms is none of the number
_NUMBER = re.compile(r"(?:(?<![\w)}.])[-\u2212])?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)(?:/\d+)?(?: ?%)?")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:\{|(?P<content>-?\d(?:[\d.,]*\d)?|[A-Za-z](?![A-Za-z])))")
_BRACE = re.compile(r"[{}]")


class Deferred(NamedTuple):
    """A verdict that is found later: by a worker process, because it can take long or crash its process, or by a
    service.
    """

    text: str  # an answer, or a `RewardInput` as JSON
    truth: str
    images: tuple[bytes, ...] = ()  # those that the JSON names


class Verdict(NamedTuple):
    """A score; or 0.0 and the reason why there is no verdict. `seconds`: time that was spent on it; 0 if it was known
    before, or was found at once. `tokens`: of a model that judged, prompt and answer. `refused`: the model refused to
    judge.
    """

    value: float
    failure: str | None = None
    seconds: float = 0.0
    cached: bool = False
    tokens: int = 0
    refused: bool = False


class Decision(NamedTuple):
    """A score, and the rule that decides: a sentence without a full stop."""

    score: float | Deferred
    rule: str


NO_ANSWER = "there is no answer, or one of more than 500 characters"


class Verifier(StrictSettings):
    """Settings of one reward term."""

    judges_answer: ClassVar[bool] = True  # False: it judges the format only and has no effect on `passed`

    type: str
    weight: float = Field(1.0, ge=0, le=100, description="Factor of this score in the summed reward.")
    time_limit_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Maximum seconds per score in the verifier process. A score that takes longer is missing.",
    )
    on_failure: OnFailure = Field(
        "zero",
        description="Effect of a missing score, which always counts in the metrics. zero: the score is 0. drop_group: "
        "the step leaves out all completions of the prompt; in validation and evaluations the score is 0. stop: the "
        "run ends with the reason, and keeps its checkpoint.",
    )

    @property
    def label(self) -> str:
        """Return the name of this verifier in metrics."""
        return self.type

    @property
    def reads_truth(self) -> bool:
        """Return if its scores need the truth of the row."""
        return False

    @property
    def parts(self) -> Mapping[str, "Verifier"]:
        """Return the verifiers whose scores `combine` needs, by name. Empty: it judges by itself."""
        return {}

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the lowest and the highest score that `judge` and `combine` give; a run scales them to 0.0 to 1.0."""
        return (0.0, 1.0)

    def settle(self, seen: RewardInput) -> float | Deferred:
        """Return the score, found in time linear in the text, or the arguments of `judge`.

        Raises:
            ValueError: there is none, such as for a row without a column that the settings name.
        """
        raise NotImplementedError

    def judge(self, text: str, truth: str) -> float:
        """Return the score that `settle` deferred. Called in worker processes only."""
        raise NotImplementedError

    @property
    def most_together(self) -> int:
        """Return how many deferred scores `judge_all` can find at once."""
        return 1

    def judge_all(self, asked: Sequence[tuple[str, str]]) -> list[float]:
        """Return the scores for several arguments of `judge`, in order. Called in worker processes only."""
        return [self.judge(text, truth) for text, truth in asked]

    def combine(self, values: Mapping[str, float]) -> float:
        """Return the score that follows from those of `parts`.

        Raises:
            ArithmeticError, ValueError: none follows.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Load everything that is slow to load. Called once in each worker process, before its first `judge`."""


class InputVerifier(Verifier):
    """Settings of a reward term that sees the whole input, not only the texts of completion and truth."""

    needs_group: bool = Field(
        False, description="Also give it all completions of the prompt. Equal completions of two groups then differ."
    )

    def settle(self, seen: RewardInput) -> float | Deferred:
        return Deferred(seen.to_json(with_group=self.needs_group), seen.truth, tuple(seen.images))

    def judge(self, text: str, truth: str) -> float:
        return valid_score(self.judge_input(RewardInput.from_json(text, truth)))

    def judge_input(self, seen: RewardInput) -> float:
        """Return the score. Called in worker processes only."""
        raise NotImplementedError


def valid_score(value: float) -> float:
    """Return a score that code from elsewhere has given, as a float.

    Raises:
        ValueError: it is not a number from 0 to 1.
    """
    value = float(value)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"returned {value}; it must return a number from 0 to 1")
    return value


class AnswerVerifier(Verifier):
    """Settings of a reward term that looks for the answer in the completion."""

    answer_in: AnswerForm = Field(
        "answer",
        description="Place of the answer. answer: the last <answer> element. boxed: the last \\boxed{}. last: the last "
        "number of the completion. The same for all verifiers of a job.",
    )

    @property
    def reads_truth(self) -> bool:
        return self.judges_answer

    def settle(self, seen: RewardInput) -> float | Deferred:
        return self.score(seen.completion, seen.truth)

    def score(self, completion: str, truth: str) -> float | Deferred:
        """Return the score as `settle` does: these verifiers see no more than two texts."""
        return self.decide(completion, truth).score

    def decide(self, completion: str, truth: str) -> Decision:
        """Return the score as `settle` does, and the rule for it."""
        raise NotImplementedError


def judges_of(rewards: Iterable[Verifier]) -> Iterator[Verifier]:
    """Yield the verifiers that judge: each reward itself, or those of its parts, in order."""
    for reward in rewards:
        if reward.parts:
            yield from judges_of(reward.parts.values())
        else:
            yield reward


def read_truth(rewards: Iterable[Verifier]) -> bool:
    """Return if a reward, or a part of one, reads the truth: then each row must have an answer."""
    return any(judge.reads_truth for judge in judges_of(rewards))


def answer_form(rewards: Iterable[Verifier]) -> AnswerForm:
    """Return where the verifiers of a run look for the answer."""
    return next((judge.answer_in for judge in judges_of(rewards) if isinstance(judge, AnswerVerifier)), "answer")


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
