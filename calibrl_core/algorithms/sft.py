"""Supervised fine-tuning on expert traces: the mean negative log-likelihood of their tokens. Warms a policy up."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from calibrl_core.settings_base import Closed

if TYPE_CHECKING:
    from torch import Tensor


class SFT(Closed):
    """Fine-tune on the data's experts. It samples nothing: `rollout` then only says how validation samples."""

    needs_experts: ClassVar[bool] = True

    type: Literal["sft"] = "sft"

    def loss(self, logprobs: Tensor, mask: Tensor, *, count: int) -> Tensor:
        """Sum over counted tokens of -logprobs / count. Both `[B, T]`, mask True = counts; `count` is the number of
        tokens of the whole batch, of which these rows may be a part."""
        return -(logprobs * mask).sum() / max(1, count)
