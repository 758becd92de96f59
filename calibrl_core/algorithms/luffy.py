"""LUFFY (arXiv 2504.14945): rollouts and the expert's own tokens in one update.

Rollout rows have GRPO's clipped loss. On an expert's row (the paper's policy shaping),

    policy_t = -A * p_t / (p_t + 0.1),   p_t = exp(logprob_t)

without a ratio to the policy that wrote it, which is not known, and without a clip; the gradient's weight
0.1 / (p + 0.1)^2 lifts tokens that the policy finds unlikely. As in the published code, and in that of arXiv
2602.20197, the expert's A is its reward minus the mean of the group's *rollouts*, and their advantages do not know of
it; the paper itself takes the mean over both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from calibrl_core.algorithms.base import PolicyGradientSettings
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from calibrl_core.config import TrainSettings
    from calibrl_core.data.schema import Example

SHAPING = 0.1  # gamma of the paper


class LearnsFromExperts(PolicyGradientSettings):
    """Base of the algorithms whose update has expert rows beside the rollouts, and the choice of these experts."""

    needs_experts: ClassVar[bool] = True
    learns_from_experts: ClassVar[bool] = True

    mix_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of the prompts with an expert whose expert joins the update."
    )
    pass_ratio_low: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Minimum pass_ratio of a row whose expert joins the update. Rows without a pass_ratio also join.",
    )
    pass_ratio_high: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Maximum pass_ratio of a row whose expert joins the update. Rows without a pass_ratio also join.",
    )

    def check(self, config: TrainSettings) -> None:
        """Check that the experts' advantages have the scale of the rollouts'.

        Raises:
            ValueError: the rollouts' advantages are not relative to their group.
        """
        super().check(config)
        if self.advantages != "group":
            raise ValueError(
                f"algorithm.advantages ({self.advantages}) must be group: an expert's advantage is relative to the "
                "rollouts of its group"
            )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.pass_ratio_low > self.pass_ratio_high:
            raise ValueError(
                f"pass_ratio_low ({self.pass_ratio_low}) must not exceed pass_ratio_high ({self.pass_ratio_high})"
            )
        return self

    def choose_experts(self, examples: Sequence[Example], chances: NDArray[np.float64]) -> list[int]:
        """Choose `mix_ratio` of the experts whose pass ratio is in the range; an unknown pass ratio is in the range."""
        low, high = self.pass_ratio_low, self.pass_ratio_high
        return [
            index
            for index, example in enumerate(examples)
            if example.expert
            and (example.pass_ratio is None or low <= example.pass_ratio <= high)
            and chances[index] < self.mix_ratio
        ]

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return policy losses per token, `[B, T]`: GRPO's on rollouts, `expert_losses` on expert rows.

        GRPO's loss gets a ratio of 1 on expert rows: its value there is not used, and its gradient stays finite.
        """
        old = batch.logprobs.detach().where(batch.is_expert[:, None], batch.old_logprobs)
        clipped = super().token_losses(replace(batch, old_logprobs=old))
        return replace(clipped, policy=self.expert_losses(batch).where(batch.is_expert[:, None], clipped.policy))

    def expert_losses(self, batch: LossBatch) -> Tensor:
        """Return the loss per token, `[B, T]`, of expert rows; called with all rows, the others are ignored."""
        raise NotImplementedError


class LUFFY(LearnsFromExperts):
    """LUFFY: policy shaping on expert rows."""

    type: Literal["luffy"] = "luffy"

    def expert_losses(self, batch: LossBatch) -> Tensor:
        """Return `-A p / (p + 0.1)`, `[B, T]`."""
        probability = batch.logprobs.exp()
        return -batch.advantages[:, None] * probability / (probability + SHAPING)
