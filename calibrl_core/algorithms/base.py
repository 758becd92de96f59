"""What every policy-gradient algorithm shares: its settings, and the batch that its loss is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from calibrl_core.settings_base import Closed

if TYPE_CHECKING:
    from torch import Tensor

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


class PolicyGradientSettings(Closed):
    """Settings shared by the clipped policy-gradient algorithms. Defaults are those of the paper's run."""

    needs_experts: ClassVar[bool] = False
    has_guidance: ClassVar[bool] = False  # a second loss beside the policy's
    learns_from_experts: ClassVar[bool] = False  # expert rows are in the update, beside the rollouts

    clip_low: float = Field(0.2, ge=0, lt=1, description="The gradient stops once the ratio falls below 1 - clip_low.")
    clip_high: float = Field(0.2, ge=0, description="The gradient stops once the ratio rises above 1 + clip_high.")
    dual_clip: float = Field(3.0, gt=1, description="For a negative advantage A the loss never exceeds -dual_clip * A.")
    normalise_by_std: bool = Field(
        False, description="Divide advantages by the group's unbiased standard deviation + 1e-6."
    )
    aggregation: Aggregation = Field("token-mean", description="Reduction of token losses to one number.")
    kl_coef: float = Field(0.0, ge=0, description="Weight of the KL divergence from the initial policy of the run.")
    kl_estimator: Literal["k1", "k3"] = Field("k3", description="Estimator of the KL divergence from sampled tokens.")
    entropy_coef: float = Field(
        0.0, ge=0, description="Weight of the entropy (nats), which is subtracted from the loss."
    )
    mini_batches: int = Field(4, ge=1, description="Optimizer updates per step. Each mini-batch contains whole groups.")
    mini_batch_rows: int | None = Field(
        None,
        ge=1,
        description="Replaces mini_batches: rows (rollouts, then the expert of the group) per mini-batch and "
        "process, as in the published script. Groups can be cut, and the last mini-batch can be "
        "shorter. None: use mini_batches.",
    )
    micro_batch_mean: bool = Field(
        False,
        description="Average each micro-batch of micro_batch_rows by itself, with equal weight per micro-batch, as "
        "in the published script. A short last mini-batch counts less.",
    )

    def guidance_weight(self, step: int) -> float:
        """The factor of `TokenLosses.guidance` in the loss of `step` (from 0)."""
        return 0.0

    def needs_all_rows(self, step: int) -> bool:
        """Whether a rollout with A = 0 can move a weight in `step`; where not, the update leaves it out."""
        return self.kl_coef > 0 or self.entropy_coef > 0

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Per-token losses, `[B, T]`, before mask and average."""
        raise NotImplementedError


@dataclass(frozen=True)
class LossBatch:
    """Rows of one micro-batch. `[B, T]`: rollouts, completion tokens (right-padded).

    Only where the algorithm `learns_from_experts` are there expert rows too, under `is_expert`. `expert_logprobs`
    holds, at position t, the policy's own log-probability (nats, before the step's first update, no gradient) of the
    t-th token of the rollout's expert.
    """

    logprobs: Tensor  # [B, T] float, current policy, carries the gradient
    old_logprobs: Tensor  # [B, T] float, the policy that sampled; of an expert row: the policy before the first update
    advantages: Tensor  # [B] float, one a row
    completion_mask: Tensor  # [B, T] bool, True = the token counts
    passed: Tensor  # [B] bool, the answer was correct (decided before any format reward)
    is_expert: Tensor  # [B] bool, the row is an expert's trajectory
    expert_logprobs: Tensor | None = None  # [B, E] float, E: the longest expert
    expert_mask: Tensor | None = None  # [B, E] bool, True = the expert has a token at this position


def to_width(rows: Tensor, width: int) -> Tensor:
    """`[B, E]` to `[B, width]`: cut, or filled with 0 (False) on the right."""
    fitted = rows.new_zeros((rows.shape[0], width))
    shared = min(width, rows.shape[1])
    fitted[:, :shared] = rows[:, :shared]
    return fitted


@dataclass(frozen=True)
class TokenLosses:
    """Per-token losses `[B, T]` (not yet masked or averaged) and the switches that the log wants to count."""

    policy: Tensor  # [B, T]
    guidance: Tensor | None  # [B, T], not yet multiplied by its weight
    clipped_low: Tensor  # [B, T] bool, ratio below 1 - clip_low with A < 0 (the clip took over)
    clipped_high: Tensor  # [B, T] bool, ratio above 1 + clip_high with A > 0
    clipped_dual: Tensor  # [B, T] bool, the dual clip took over
