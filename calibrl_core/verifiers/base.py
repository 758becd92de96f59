"""Base of all reward verifiers. A verifier is plain Python: it maps a completion and the truth to a score from 0.0 to
1.0.
"""

from typing import ClassVar, NamedTuple

from pydantic import Field

from calibrl_core.settings_base import StrictSettings


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


def follows_format(completion: str) -> bool:
    """Return if the completion is exactly `<think>reasoning</think><answer>answer</answer>`, each tag once."""
    text = completion.strip()
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if not (text.startswith(tags[0]) and text.endswith(tags[3]) and all(text.count(tag) == 1 for tag in tags)):
        return False
    thought, _, rest = text.removeprefix(tags[0]).removesuffix(tags[3]).partition(tags[1])
    between, answer_tag, answer = rest.partition(tags[2])
    return bool(thought and answer_tag and answer and not between.strip())


def extract_answer(completion: str) -> str | None:
    """Return the text of the last `<answer>` element, or None without one."""
    start = completion.rfind("<answer>", 0, max(completion.rfind("</answer>"), 0))
    return completion[start + len("<answer>") :].partition("</answer>")[0].strip() if start >= 0 else None


def final_answer(completion: str) -> str | None:
    """Return the answer without `\\boxed{}` around it; if the answer contains some, the content of the last one."""
    answer = extract_answer(completion)
    return None if answer is None else strip_boxed(answer)


def strip_boxed(text: str) -> str:
    """Return the content of the last `\\boxed{}` with balanced braces; without one, the stripped text."""
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
