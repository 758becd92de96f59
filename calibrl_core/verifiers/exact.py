"""Answer reward: the `<answer>` text equals the truth, character by character."""

from typing import Literal

from pydantic import Field

from calibrl_core.verifiers.base import AnswerVerifier, final_answer


class ExactReward(AnswerVerifier):
    """1.0 if the stripped answer equals the truth, else 0.0."""

    type: Literal["exact"] = "exact"
    ignore_case: bool = Field(False, description="Treat upper and lower case as equal.")

    def score(self, completion: str, truth: str) -> float:
        answer, truth = final_answer(completion, self.answer_in), truth.strip()
        if answer is None or answer == "":
            return 0.0
        return float(answer.casefold() == truth.casefold() if self.ignore_case else answer == truth)
