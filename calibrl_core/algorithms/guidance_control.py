"""Control of CalibRL's guidance: it keeps a measure of a run within a band by moving one setting of the guidance.

After a step whose measure is below the band the setting is multiplied by `factor`, after a step above the band it is
divided; a step within the band leaves it. `negative_slope` moves the other way for entropy: the tokens that it weights
are pushed further to where they already are, which lowers entropy.
"""

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from calibrl_core.settings.base import StrictSettings

MovedSetting = Literal["guidance_coef", "negative_slope"]
_METRICS = {"entropy": "exploration/entropy", "opposing_share": "expert/opposing_share"}
_FALLS = {("entropy", "negative_slope")}  # measure and setting: the setting falls if the measure is below the band


class GuidanceControl(StrictSettings):
    """Band of a measure, and the setting that is moved to stay within it."""

    moves: MovedSetting = Field(
        "guidance_coef", description="The setting of the algorithm that is moved, from its own value on."
    )
    measure: Literal["entropy", "opposing_share"] = Field(
        "entropy",
        description="entropy: exploration/entropy, in nats per token. opposing_share: expert/opposing_share, the share "
        "of tokens on which guidance opposes the policy gradient.",
    )
    low: float = Field(ge=0, description="Lower end of the band, in the unit of the measure.")
    high: float = Field(ge=0, description="Upper end of the band, in the unit of the measure.")
    factor: float = Field(
        1.05, gt=1, le=2, description="Factor by which a step outside the band multiplies or divides the setting."
    )
    minimum: float = Field(0.01, gt=0, description="Smallest value of the setting.")
    maximum: float = Field(1.0, gt=0, description="Largest value of the setting. Of negative_slope at most 1.")

    @model_validator(mode="after")
    def _bands_are_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        if self.minimum > self.maximum:
            raise ValueError(f"minimum ({self.minimum:g}) must not exceed maximum ({self.maximum:g})")
        if self.moves == "negative_slope" and self.maximum > 1:
            raise ValueError(f"maximum ({self.maximum:g}) of negative_slope must not exceed 1")
        if self.measure == "opposing_share" and self.high > 1:
            raise ValueError(f"high ({self.high:g}) of opposing_share must not exceed 1: it is a share")
        return self

    def check_start(self, value: float) -> None:
        """Check the value that the run starts with: a product with 0 never moves.

        Raises:
            ValueError: it is outside the limits.
        """
        if not self.minimum <= value <= self.maximum:
            raise ValueError(
                f"{self.moves} ({value:g}) must be from guidance_control.minimum ({self.minimum:g}) to "
                f"guidance_control.maximum ({self.maximum:g})"
            )

    def next_value(self, value: float, metrics: Mapping[str, float]) -> float:
        """Return the value after a step with these metrics. Without the measure, or if it is not finite: the same."""
        measured = metrics.get(_METRICS[self.measure], math.nan)
        if self.low <= measured <= self.high or not math.isfinite(measured):
            return value
        rises = (measured < self.low) != ((self.measure, self.moves) in _FALLS)
        moved = value * self.factor if rises else value / self.factor
        return min(max(moved, self.minimum), self.maximum)
