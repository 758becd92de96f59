"""Reward verifiers that a job can name. To add one: a file here, and a member of this union."""

from typing import Annotated

from pydantic import Field

from calibrl_core.verifiers.choice import ChoiceReward
from calibrl_core.verifiers.exact import ExactReward
from calibrl_core.verifiers.format import FormatReward
from calibrl_core.verifiers.math import MathReward
from calibrl_core.verifiers.numeric import NumericReward
from calibrl_core.verifiers.plugin import PluginReward

Reward = Annotated[
    MathReward | ChoiceReward | ExactReward | NumericReward | FormatReward | PluginReward, Field(discriminator="type")
]

__all__ = ["ChoiceReward", "ExactReward", "FormatReward", "MathReward", "NumericReward", "PluginReward", "Reward"]
