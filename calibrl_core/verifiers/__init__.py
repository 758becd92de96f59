"""The reward verifiers a job may name. To add one: a file here, and a member of this union."""

from typing import Annotated

from pydantic import Field

from calibrl_core.verifiers.format import FormatReward
from calibrl_core.verifiers.math import MathReward

Reward = Annotated[MathReward | FormatReward, Field(discriminator="type")]

__all__ = ["FormatReward", "MathReward", "Reward"]
