"""A step's diagnostics, one file a family. To add a family: a file here, and a member of `FAMILIES`."""

from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.expert_mismatch import expert_mismatch
from calibrl_core.diagnostics.exploration import exploration, length
from calibrl_core.diagnostics.rareness import rareness
from calibrl_core.diagnostics.reward import reward

FAMILIES = (reward, exploration, length, rareness, expert_mismatch)


def diagnose(batch: StepBatch) -> dict[str, float]:
    """Every family's metrics, by `family/name`."""
    return {name: value for family in FAMILIES for name, value in family(batch).items()}
