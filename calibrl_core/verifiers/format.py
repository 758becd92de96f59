"""Format reward: the completion reasons in `<think>` and then answers, by default in `<answer>`."""

from typing import ClassVar, Literal

from pydantic import Field

from calibrl_core.verifiers.base import AnswerVerifier, Decision, follows_format


class FormatReward(AnswerVerifier):
    """1.0 if the completion follows the format, for any answer."""

    judges_answer: ClassVar[bool] = False

    type: Literal["format"] = "format"
    weight: float = Field(0.1, ge=0, le=100, description="Factor of this score in the summed reward.")

    def decide(self, completion: str, truth: str) -> Decision:
        return Decision(float(follows_format(completion, self.answer_in)), "the form of the completion counts")
