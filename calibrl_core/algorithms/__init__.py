"""The algorithms a job may name. To add one: a file here, and a member of this union."""

from typing import Annotated

from pydantic import Field

from calibrl_core.algorithms.calibrl import CalibRL
from calibrl_core.algorithms.dapo import DAPO
from calibrl_core.algorithms.dr_grpo import DrGRPO
from calibrl_core.algorithms.grpo import GRPO
from calibrl_core.algorithms.gspo import GSPO
from calibrl_core.algorithms.luffy import LUFFY
from calibrl_core.algorithms.rl_plus import RLPlus
from calibrl_core.algorithms.sft import SFT

Algorithm = Annotated[
    CalibRL | GRPO | DrGRPO | DAPO | GSPO | LUFFY | RLPlus | SFT,
    Field(discriminator="type"),
]

__all__ = ["DAPO", "GRPO", "GSPO", "LUFFY", "SFT", "Algorithm", "CalibRL", "DrGRPO", "RLPlus"]
