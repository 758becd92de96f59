"""Answer reward: the `<answer>` text equals the truth, character by character."""

from typing import Literal

from pydantic import Field

from calibrl_core.verifiers.base import AnswerVerifier, Decision, final_answer


class ExactReward(AnswerVerifier):
    """1.0 if the stripped answer equals the truth, else 0.0."""

    type: Literal["exact"] = "exact"
    ignore_case: bool = Field(False, description="Treat upper and lower case as equal.")

    def decide(self, completion: str, truth: str) -> Decision:
        answer, truth = final_answer(completion, self.answer_in), truth.strip()
        if answer is None or answer == "":
            return Decision(0.0, "there is no answer")
        if self.ignore_case:
            return Decision(float(answer.casefold() == truth.casefold()), "characters are compared without their case")
        return Decision(float(answer == truth), "characters are compared as they are")
