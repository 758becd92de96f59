"""What every reward verifier shares. A verifier is plain Python: a completion and the truth in, 0.0 to 1.0 out."""

from typing import ClassVar, NamedTuple

from pydantic import Field

from calibrl_core.settings_base import Closed


class Pending(NamedTuple):
    """A verdict that only a worker process may find, since it may take long or bring its process down."""

    text: str
    truth: str


class Verifier(Closed):
    """Settings of one reward term."""

    judges_answer: ClassVar[bool] = True  # False: it judges form only, and has no say in whether a rollout passed

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
        """What metrics call it."""
        return self.type

    def score(self, completion: str, truth: str) -> float | Pending:
        """0.0 (wrong) to 1.0 (right), in time linear in the text; or what a worker process is to ask `judge`."""
        raise NotImplementedError

    def judge(self, text: str, truth: str) -> float:
        """The verdict on what `score` left pending. Called in worker processes only."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Called once in each worker process, before its first `judge`: load what takes time to load."""


def follows_format(completion: str) -> bool:
    """Whether the completion is exactly `<think>reasoning</think><answer>answer</answer>`, each tag once."""
    text = completion.strip()
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if not (text.startswith(tags[0]) and text.endswith(tags[3]) and all(text.count(tag) == 1 for tag in tags)):
        return False
    thought, _, rest = text.removeprefix(tags[0]).removesuffix(tags[3]).partition(tags[1])
    between, found, answer = rest.partition(tags[2])
    return bool(thought and found and answer and not between.strip())


def extract_answer(completion: str) -> str | None:
    """The text of the last `<answer>` element, or None where there is none."""
    start = completion.rfind("<answer>", 0, max(completion.rfind("</answer>"), 0))
    return completion[start + len("<answer>") :].partition("</answer>")[0].strip() if start >= 0 else None


def final_answer(completion: str) -> str | None:
    """The answer without the `\\boxed{}` that may stand around or in it: the content of the last one."""
    answer = extract_answer(completion)
    return None if answer is None else unboxed(answer)


def unboxed(text: str) -> str:
    """The content of the last `\\boxed{}`, where braces balance; else the text as it is, stripped."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return text.strip()
    start += len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip()
    return text.strip()
