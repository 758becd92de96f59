"""CalibRL (arXiv 2602.20197): GRPO's clipped loss plus guidance calibrated by an expert baseline.

For a rollout with advantage A and s = +1 where it passed, -1 where it failed, each token t adds

    guidance_t = |A| * LeakyReLU(-s * gap_t; negative_slope),    gap_t = log pi(o_t) - log pi_old(e_t)

with e_t the expert's t-th token. The two log-probabilities are of one policy: there is no expert model. |A| is the
rareness weight of the outcome in its group. The loss is policy + guidance_coef * guidance over rollout tokens only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from calibrl_core.algorithms.base import PolicyGradientSettings
from calibrl_core.algorithms.guidance_control import GuidanceControl
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses, to_width

if TYPE_CHECKING:
    from torch import Tensor


EXPERT_ROW_FIELDS = ("mix_ratio", "pass_ratio_low", "pass_ratio_high")


class CalibRL(PolicyGradientSettings):
    """CalibRL; the defaults are the paper's run. Its update has no expert rows."""

    needs_experts: ClassVar[bool] = True
    has_guidance: ClassVar[bool] = True

    type: Literal["calibrl"] = "calibrl"
    negative_slope: float = Field(
        0.5, ge=0, le=1, description="LeakyReLU slope for tokens where the policy is already calibrated."
    )
    guidance_coef: float = Field(0.1, ge=0, description="Weight of the guidance loss relative to the policy loss.")
    expert_gap: Literal["token", "sequence_mean", "sequence_sum", "shuffled"] = Field(
        "token",
        description="token: one gap per position, as in the published code. sequence_mean, sequence_sum: one gap "
        "per rollout, as in the paper's text, from the mean or sum of the log-probabilities on each "
        "side. shuffled: the gaps per token in random order, a control for studies; diagnostics show the true gaps.",
    )
    expert_tail: Literal["none", "zero", "zero_for_all"] = Field(
        "none",
        description="Rollout tokens after the end of the expert. none: no guidance. zero: compare with a "
        "log-probability of 0. zero_for_all: also every token of a rollout without an expert, as in the published "
        "code, with expert_gap token.",
    )
    rareness_weighting: bool = Field(True, description="Weight the guidance by |A|. False: weight every rollout by 1.")
    guidance_start_step: int = Field(0, ge=0, description="First step (from 0) whose loss contains the guidance.")
    guidance_control: GuidanceControl | None = Field(
        None,
        description="Move guidance_coef or negative_slope after each step to keep a measure within a band. None: both "
        "stay as they are.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_expert_rows(cls, values: Any) -> Any:
        """Refuse settings that the published script passes to CalibRL too, although they change nothing there."""
        reason = PydanticCustomError(
            "no_expert_rows",
            "CalibRL compares rollouts with the expert but never trains on the expert's own tokens, so there are no "
            "expert rows to choose; remove this field, or use the algorithm luffy or rl_plus",
        )
        refused = [
            InitErrorDetails(type=reason, loc=(name,), input=values[name])
            for name in EXPERT_ROW_FIELDS
            if isinstance(values, dict) and name in values
        ]
        if refused:
            raise ValidationError.from_exception_data(cls.__name__, refused)
        return values

    @model_validator(mode="after")
    def _can_be_moved(self) -> Self:
        if self.guidance_control is not None:
            self.guidance_control.check_start(getattr(self, self.guidance_control.moves))
        return self

    @property
    def default_variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Return other strengths of guidance, slopes and gaps, and the algorithms that CalibRL is compared with."""
        fixed = {} if self.guidance_control is None else {"guidance_control": None}  # its limits exclude some values
        changes: dict[str, dict[str, Any]] = {
            "no guidance": {"guidance_coef": 0.0, **fixed},
            "three times the guidance": {"guidance_coef": 3 * self.guidance_coef, **fixed},
            "slope 0": {"negative_slope": 0.0, **fixed},
            "slope 1": {"negative_slope": 1.0, **fixed},
            "gap of whole sequences": {"expert_gap": "sequence_mean"},
            "dr_grpo": {"type": "dr_grpo"},
            "luffy": {"type": "luffy"},
        }
        own = self.model_dump()
        return {name: one for name, one in changes.items() if any(own.get(field) != one[field] for field in one)}

    @property
    def moving(self) -> tuple[str, ...]:
        """Return the setting that `guidance_control` moves."""
        return () if self.guidance_control is None else (self.guidance_control.moves,)

    def moved(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Move it by `guidance_control`, once the loss contains the guidance."""
        control = self.guidance_control
        if control is None or step < self.guidance_start_step:
            return {}
        return {control.moves: control.next_value(getattr(self, control.moves), metrics)}

    def guidance_weight(self, step: int) -> float:
        """Return guidance_coef from guidance_start_step on, 0 before."""
        return self.guidance_coef if step >= self.guidance_start_step else 0.0

    def needs_all_rows(self, step: int) -> bool:
        """True also if guidance is not weighted by |A|: it then moves rollouts with A = 0 too."""
        return super().needs_all_rows(step) or (not self.rareness_weighting and self.guidance_weight(step) > 0)

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return policy and guidance losses per token, `[B, T]`. `batch.expert_logprobs` must be present."""
        return replace(super().token_losses(batch), guidance=self._guidance(batch))

    def expert_gaps(self, batch: LossBatch) -> tuple[Tensor, Tensor]:
        """Return the gap to the expert, `[B, T]` nats, and the tokens that have one, `[B, T]` bool.

        A token past the expert's end has no counterpart. The published code compares such a token with padding, which
        is an accident of layout, so `expert_tail="none"` leaves it out. A rollout without an expert has no gap.
        """
        assert batch.expert_logprobs is not None and batch.expert_mask is not None
        expert = batch.expert_logprobs.masked_fill(~batch.expert_mask, 0.0)
        has_expert = batch.expert_mask.any(-1, keepdim=True)  # [B, 1]
        if self.expert_gap in ("token", "shuffled"):
            width = batch.logprobs.shape[1]
            aligned = to_width(batch.expert_mask, width) if self.expert_tail == "none" else has_expert
            aligned = aligned | (self.expert_tail == "zero_for_all")
            return batch.logprobs - to_width(expert, width), batch.completion_mask & aligned
        rollout_sum = (batch.logprobs * batch.completion_mask).sum(-1, keepdim=True)  # [B, 1]
        expert_sum = expert.sum(-1, keepdim=True)
        if self.expert_gap == "sequence_mean":
            rollout_sum = rollout_sum / batch.completion_mask.sum(-1, keepdim=True).clamp(min=1)
            expert_sum = expert_sum / batch.expert_mask.sum(-1, keepdim=True).clamp(min=1)
        gap = (rollout_sum - expert_sum).expand_as(batch.logprobs)
        return gap, batch.completion_mask & has_expert

    def _guidance(self, batch: LossBatch) -> Tensor:
        from torch.nn.functional import leaky_relu

        gap, counted = self.expert_gaps(batch)
        sign = batch.passed.to(gap.dtype).mul(2).sub(1)[:, None]  # [B, 1]: +1 passed, -1 failed
        opposed = -sign * gap  # [B, T] nats, above 0 where the policy is not calibrated yet
        if self.expert_gap == "shuffled":
            push = opposed * _shuffled_slopes(opposed.detach(), counted, batch.passed, self.negative_slope)
        else:
            push = leaky_relu(opposed, negative_slope=self.negative_slope)
        if self.rareness_weighting:
            push = batch.advantages.abs()[:, None] * push
        return push.masked_fill(~counted, 0.0)


def _shuffled_slopes(opposed: Tensor, counted: Tensor, passed: Tensor, negative_slope: float) -> Tensor:
    """Return LeakyReLU's slopes `[B, T]` at the counted tokens, in random order within the rollouts that passed and
    within those that failed. The order is a function of the values, so that a resumed run repeats it.
    """
    import torch

    slopes = torch.where(opposed > 0, 1.0, negative_slope)
    total = opposed.double().masked_fill(~counted, 0.0).sum().cpu()
    generator = torch.Generator().manual_seed(int(total.view(torch.int64)))
    for rows in (passed, ~passed):
        tokens = counted & rows[:, None]  # [B, T]
        found = slopes[tokens]
        slopes[tokens] = found[torch.randperm(len(found), generator=generator).to(found.device)]
    return slopes
