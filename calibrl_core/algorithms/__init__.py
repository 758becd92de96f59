"""The algorithms a job may name. To add one: a file here, and a member of this union."""

from typing import Annotated

from pydantic import Field

from calibrl_core.algorithms.calibrl import CalibRL
from calibrl_core.algorithms.grpo import GRPO
from calibrl_core.algorithms.sft import SFT

Algorithm = Annotated[CalibRL | GRPO | SFT, Field(discriminator="type")]

__all__ = ["GRPO", "SFT", "Algorithm", "CalibRL"]
