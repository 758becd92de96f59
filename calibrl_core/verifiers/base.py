"""What every reward verifier shares. A verifier is plain Python: a completion and the truth in, 0.0 to 1.0 out."""

import re
from typing import ClassVar

from pydantic import Field

from calibrl_core.closed import Closed

_FORMAT = re.compile(r"\s*<think>.+?</think>\s*<answer>(.+?)</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Verifier(Closed):
    """Settings of one reward term."""

    judges_answer: ClassVar[bool] = True  # False: it judges form only, and has no say in whether a rollout passed

    weight: float = Field(1.0, ge=0, le=100, description="this term's factor in the summed reward")

    def score(self, completion: str, truth: str) -> float:
        """0.0 (wrong) to 1.0 (right)."""
        raise NotImplementedError


def follows_format(completion: str) -> bool:
    """Whether the completion is exactly `<think>reasoning</think><answer>answer</answer>`, each tag once."""
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    return _FORMAT.fullmatch(completion) is not None and all(completion.count(tag) == 1 for tag in tags)


def extract_answer(completion: str) -> str | None:
    """The text of the last `<answer>` element, or None where there is none."""
    found = _ANSWER.findall(completion)
    return found[-1].strip() if found else None
