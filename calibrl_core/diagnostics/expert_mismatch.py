"""Family expert/: the distance between the policy and its expert, and its sign.

The gap of a token is log pi_old(rollout token) - log pi_old(expert token at that position), in nats. Above 0 the policy
is more confident in its own token than in the expert's. Together with the rollout's outcome this gives four quadrants.
CalibRL's guidance acts fully in two of them, and only by `negative_slope` in the others (the damped ones). These are
gaps token by token, independent of the loss's `expert_gap`.
"""

import numpy as np
from torch import Tensor

from calibrl_core.diagnostics.base import StepBatch, mean_if_any
from calibrl_core.diagnostics.histograms import Histogram, outcome_histograms
from calibrl_core.metrics.expert import Quadrant

GAP_EDGES = np.linspace(-16.0, 16.0, 65)  # nats


def expert_mismatch(batch: StepBatch) -> dict[str, float]:
    """Return mean gaps (nats), the four quadrants, and the tokens on which guidance opposes the policy gradient, as
    shares of the tokens that have a gap. Empty without experts.
    """
    nll = batch.experts.nll
    if nll is None:
        return {}
    values = {"expert/nll": nll}
    gaps, correct = _gaps(batch)
    if not len(gaps):
        return values
    members = quadrants(gaps, correct)
    shares = {f"expert/quadrant_{name}": member.double().mean().item() for name, member in members.items()}
    damped = shares["expert/quadrant_confident_correct"] + shares["expert/quadrant_humble_wrong"]
    return {
        **values,
        **mean_if_any("expert/gap_mean", gaps),
        **mean_if_any("expert/gap_correct", gaps[correct]),
        **mean_if_any("expert/gap_wrong", gaps[~correct]),
        **shares,
        "expert/damped_share": damped,
        "expert/opposing_share": _opposing(batch),
    }


def gap_histograms(batch: StepBatch) -> dict[str, Histogram]:
    """Return histograms of the gaps; empty if no token has one."""
    gaps, correct = _gaps(batch)
    if not len(gaps):
        return {}
    return outcome_histograms("expert/gap", "expert/gap_correct", "expert/gap_wrong", gaps, correct, GAP_EDGES)


def _gaps(batch: StepBatch) -> tuple[Tensor, Tensor]:
    """Return the gap of every token that has one, `[N]` nats, and whether its rollout passed, `[N]` bool."""
    counted = batch.gap_mask
    return batch.gaps[counted].double(), batch.passed.flatten()[:, None].expand_as(counted)[counted]


def quadrants(gaps: Tensor, correct: Tensor) -> dict[Quadrant, Tensor]:
    """Return which tokens are in each quadrant, `[N]` bool each. gaps `[N]` nats, correct `[N]` bool: the completion
    passed.
    """
    confident = gaps >= 0
    return {
        "confident_correct": correct & confident,
        "underconfident_correct": correct & ~confident,
        "overconfident_wrong": ~correct & confident,
        "humble_wrong": ~correct & ~confident,
    }


def _opposing(batch: StepBatch) -> float:
    """Return the share of tokens on which guidance and the policy gradient have opposite signs.

    Guidance raises tokens of a rollout that passed and lowers those of one that failed; the policy gradient raises
    tokens if A > 0 and lowers them if A < 0. They can differ only through reward terms other than correctness: a right
    answer in the wrong format with a reward below its group's mean, or a wrong answer with one above it.
    """
    signs = batch.passed.double() * 2 - 1  # [P, G]: s, +1 passed, -1 failed
    opposed = (signs * batch.advantages < 0).flatten()  # [B]
    counted = batch.gap_mask
    return opposed[:, None].expand_as(counted)[counted].double().mean().item()
