"""Supervised fine-tuning on expert traces: the mean negative log-likelihood of their tokens. Warms a policy up."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from calibrl_core.closed import Closed

if TYPE_CHECKING:
    from torch import Tensor


class SFT(Closed):
    """Fine-tune on the data's experts. It samples nothing: `rollout` then only says how validation samples."""

    needs_experts: ClassVar[bool] = True

    type: Literal["sft"] = "sft"

    def loss(self, logprobs: Tensor, mask: Tensor) -> Tensor:
        """Mean over counted tokens of -logprobs. Both `[B, T]`, mask True = counts."""
        return -(logprobs * mask).sum() / mask.sum().clamp(min=1)
