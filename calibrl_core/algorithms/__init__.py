"""The built-in algorithms. `registry` has these and those of other installed packages."""

from calibrl_core.algorithms.base import AlgorithmSettings, PolicyGradientSettings, SupervisedSettings
from calibrl_core.algorithms.calibrl import CalibRL
from calibrl_core.algorithms.chord import CHORD
from calibrl_core.algorithms.cispo import CISPO
from calibrl_core.algorithms.dapo import DAPO
from calibrl_core.algorithms.dr_grpo import DrGRPO
from calibrl_core.algorithms.grpo import GRPO
from calibrl_core.algorithms.gspo import GSPO
from calibrl_core.algorithms.luffy import LUFFY
from calibrl_core.algorithms.rl_plus import RLPlus
from calibrl_core.algorithms.sapo import SAPO
from calibrl_core.algorithms.sft import SFT

__all__ = [
    "CHORD",
    "CISPO",
    "DAPO",
    "GRPO",
    "GSPO",
    "LUFFY",
    "SAPO",
    "SFT",
    "AlgorithmSettings",
    "CalibRL",
    "DrGRPO",
    "PolicyGradientSettings",
    "RLPlus",
    "SupervisedSettings",
]
