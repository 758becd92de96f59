"""Family expert/: how far the policy stands from its expert, and on which side.

The gap of a token is log pi_old(rollout token) - log pi_old(expert token at that position), in nats: above 0 the policy
is more confident in its own token than in the expert's. With the rollout's outcome that makes four quadrants; CalibRL's
guidance pushes fully in two of them and only by `negative_slope` in the others (the damped ones). Whatever `expert_gap`
the loss uses, these are the gaps token by token.
"""

import numpy as np
from torch import Tensor

from calibrl_core.diagnostics.base import StepBatch, mean_or_nothing
from calibrl_core.diagnostics.histograms import Histogram, by_outcome

GAP_EDGES = np.linspace(-16.0, 16.0, 65)  # nats


def expert_mismatch(batch: StepBatch) -> dict[str, float]:
    """Mean gaps (nats), the four quadrants and where guidance opposes the policy gradient, as shares of the tokens that
    have a gap; nothing without experts."""
    nll = batch.experts.nll
    if nll is None:
        return {}
    values = {"expert/nll": nll}
    gaps, correct = _gaps(batch)
    if not len(gaps):
        return values
    shares = _quadrants(gaps >= 0, correct)
    damped = shares["expert/quadrant_confident_correct"] + shares["expert/quadrant_humble_wrong"]
    return {
        **values,
        **mean_or_nothing("expert/gap_mean", gaps),
        **mean_or_nothing("expert/gap_correct", gaps[correct]),
        **mean_or_nothing("expert/gap_wrong", gaps[~correct]),
        **shares,
        "expert/damped_share": damped,
        "expert/opposing_share": _opposing(batch),
    }


def gap_histograms(batch: StepBatch) -> dict[str, Histogram]:
    """The gap of every token that has one; nothing where none has."""
    gaps, correct = _gaps(batch)
    if not len(gaps):
        return {}
    return by_outcome("expert/gap", "expert/gap_correct", "expert/gap_wrong", gaps, correct, GAP_EDGES)


def _gaps(batch: StepBatch) -> tuple[Tensor, Tensor]:
    """`[N]` nats and `[N]` bool: the gap of every token that has one, and whether its rollout passed."""
    counted = batch.gap_mask
    return batch.gaps[counted].double(), batch.passed.flatten()[:, None].expand_as(counted)[counted]


def _quadrants(confident: Tensor, correct: Tensor) -> dict[str, float]:
    members = {
        "confident_correct": correct & confident,
        "underconfident_correct": correct & ~confident,
        "overconfident_wrong": ~correct & confident,
        "humble_wrong": ~correct & ~confident,
    }
    return {f"expert/quadrant_{name}": member.double().mean().item() for name, member in members.items()}


def _opposing(batch: StepBatch) -> float:
    """The share of tokens on which guidance pushes one way (up where the rollout passed, down where not) and the policy
    gradient the other (up where A > 0, down where A < 0). Only terms beside correctness can bring that about: a right
    answer in the wrong format that fares worse than its group, or a wrong one that fares better."""
    signs = batch.passed.double() * 2 - 1  # [P, G]: s, +1 passed, -1 failed
    opposed = (signs * batch.advantages < 0).flatten()  # [B]
    counted = batch.gap_mask
    return opposed[:, None].expand_as(counted)[counted].double().mean().item()
