"""Settings that change which tokens are sampled, beside the temperature: the same in training and in evaluations."""

from typing import Annotated

from pydantic import Field

from calibrl_core.settings_base import StrictSettings


class SamplingSettings(StrictSettings):
    """Filters of the sampled distribution, and strings that end a completion."""

    top_k: int = Field(0, ge=0, le=1_000_000, description="Sample from the top_k most likely tokens only. 0: no limit.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Sample from the smallest set of most likely tokens whose probabilities sum to at least top_p. "
        "1: no limit.",
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Sample only tokens that have at least min_p times the probability of the most likely token. "
        "0: no limit.",
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Divisor of the positive logits, and factor of the negative logits, of all tokens that the prompt "
        "or the completion has already. 1: no penalty.",
    )
    stop: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        (),
        max_length=16,
        description="Strings that end a completion, like the end of a turn. The string stays in the completion.",
    )

    @property
    def keeps_distribution(self) -> bool:
        """Return true if tokens are sampled from the policy's own distribution."""
        return self.top_k == 0 and self.top_p == self.repetition_penalty == 1 and self.min_p == 0


PLAIN = SamplingSettings()
