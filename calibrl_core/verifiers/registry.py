"""Reward verifiers that a job can name. To add one: a file here, and a member of this union."""

from typing import Annotated

from pydantic import Field

from calibrl_core.verifiers import (
    ChoiceReward,
    ExactReward,
    FormatReward,
    MathReward,
    NumericReward,
    PluginReward,
)

Reward = Annotated[
    MathReward | ChoiceReward | ExactReward | NumericReward | FormatReward | PluginReward, Field(discriminator="type")
]
