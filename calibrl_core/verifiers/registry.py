"""Reward verifiers that a job can name: those that judge, and formulas over them."""

from typing import Annotated

from pydantic import Field

from calibrl_core.verifiers.judges import Judge
from calibrl_core.verifiers.multi import MultiReward

Reward = Annotated[Judge | MultiReward, Field(discriminator="type")]
