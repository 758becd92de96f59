"""Family expert/: how far the policy stands from its expert, and on which side.

The gap of a token is log pi_old(rollout token) - log pi_old(expert token at that position), in nats: above 0 the policy
is more confident in its own token than in the expert's. With the rollout's outcome that makes four quadrants; CalibRL's
guidance pushes fully in two of them and only by `negative_slope` in the others (the damped ones).
"""

import numpy as np

from calibrl_core.diagnostics.base import StepBatch, mean_or_nothing

GAP_EDGES = np.linspace(-16.0, 16.0, 65)  # nats; what lies outside counts in the end bins


def expert_mismatch(batch: StepBatch) -> dict[str, float]:
    """Mean gaps (nats) and the four quadrants as shares of the tokens that have a gap; nothing without experts."""
    nll = batch.experts.nll
    if nll is None:
        return {}
    counted = batch.gap_mask
    gaps = batch.gaps[counted].double()  # [N]
    correct = batch.passed.flatten()[:, None].expand_as(counted)[counted]  # [N] bool
    values = {"expert/nll": nll}
    if not len(gaps):
        return values
    confident = gaps >= 0
    quadrants = {
        "confident_correct": correct & confident,
        "underconfident_correct": correct & ~confident,
        "overconfident_wrong": ~correct & confident,
        "humble_wrong": ~correct & ~confident,
    }
    shares = {f"expert/quadrant_{name}": members.double().mean().item() for name, members in quadrants.items()}
    damped = shares["expert/quadrant_confident_correct"] + shares["expert/quadrant_humble_wrong"]
    return {
        **values,
        **mean_or_nothing("expert/gap_mean", gaps),
        **mean_or_nothing("expert/gap_correct", gaps[correct]),
        **mean_or_nothing("expert/gap_wrong", gaps[~correct]),
        **shares,
        "expert/damped_share": damped,
    }


def gap_histogram(batch: StepBatch) -> tuple[list[float], list[int]]:
    """Edges (the same at every step) and counts of the gap over tokens."""
    gaps = batch.gaps[batch.gap_mask].cpu().numpy().clip(GAP_EDGES[0], GAP_EDGES[-1])
    return GAP_EDGES.tolist(), np.histogram(gaps, GAP_EDGES)[0].tolist()
