"""Supervised fine-tuning on expert traces: the mean negative log-likelihood of their tokens. Warms a policy up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict

from calibrl_core.algorithms.base import SupervisedSettings

if TYPE_CHECKING:
    from torch import Tensor


class SFT(SupervisedSettings):
    """Fine-tune on the data's experts. It samples nothing: `rollout` then only says how validation samples."""

    model_config = ConfigDict(title="Supervised fine-tuning")

    type: Literal["sft"] = "sft"

    def loss(self, logprobs: Tensor, mask: Tensor, *, count: int) -> Tensor:
        """Return the sum over counted tokens of -logprobs / count. See `SupervisedSettings.loss`."""
        return -(logprobs * mask).sum() / max(1, count)
