"""Diagnostics of a step, one file per family.

To add a family: a file here, and a member of `FAMILIES`; or an entry point of another package (`installed.py`).
"""

from collections.abc import Callable

from calibrl_core.config import TrainSettings
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.expert_mismatch import expert_mismatch, gap_histograms
from calibrl_core.diagnostics.exploration import entropy_histogram, exploration
from calibrl_core.diagnostics.histograms import Histogram
from calibrl_core.diagnostics.image import image
from calibrl_core.diagnostics.installed import installed_families
from calibrl_core.diagnostics.length import length
from calibrl_core.diagnostics.rareness import highest_rareness, rareness, rareness_histograms
from calibrl_core.diagnostics.reward import reward

Family = Callable[[StepBatch], dict[str, float]]
FAMILIES: tuple[Family, ...] = (reward, exploration, length, rareness, expert_mismatch, image)


def diagnose(batch: StepBatch) -> dict[str, float]:
    """Return every family's metrics, by `family/name`. A metric without values is absent, not zero."""
    families: tuple[Family, ...] = (*installed_families(), *FAMILIES)  # of two equal names, the built-in metric counts
    return {name: value for family in families for name, value in family(batch).items()}


def histograms(batch: StepBatch, config: TrainSettings) -> dict[str, Histogram]:
    """Return the step's histograms by name; each has the same edges at every step of a run."""
    return {
        **rareness_histograms(batch, highest_rareness(config)),
        "exploration/entropy": entropy_histogram(batch),
        **gap_histograms(batch),
    }
