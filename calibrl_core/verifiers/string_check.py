"""Reward for equal or contained text, between two templates: OpenAI's grader of this name."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from calibrl_core.verifiers.base import Verifier
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.templates import LONGEST, check_template, fill, names_truth

Template = Annotated[str, Field(max_length=LONGEST), AfterValidator(check_template)]
OPERATIONS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


class StringCheckReward(Verifier):
    """1.0 if the operation holds between two texts, else 0.0. White space around both is removed, and nothing else. An
    empty reference is contained in no text.
    """

    type: Literal["string_check"] = "string_check"
    name: str = Field(
        "string_check", pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name in metrics."
    )
    input: Template = Field("{{ sample.output_text }}", description="Text to check, with placeholders.")
    reference: Template = Field("{{ truth }}", description="Text to compare with, with placeholders.")
    operation: Literal["eq", "ne", "like", "ilike"] = Field(
        "eq",
        description="eq: equal. ne: not equal. like: the input contains the reference. ilike: the same in any case.",
    )

    @property
    def label(self) -> str:
        return self.name

    @property
    def reads_truth(self) -> bool:
        return names_truth(self.input, self.reference)

    def settle(self, seen: RewardInput) -> float:
        text, reference = fill(self.input, seen).strip(), fill(self.reference, seen).strip()
        contains = self.operation in ("like", "ilike")
        return float(OPERATIONS[self.operation](text, reference) and not (contains and reference == ""))
