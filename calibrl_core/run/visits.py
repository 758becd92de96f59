"""Visits: the result of each group that a step learned from, so that the life of a prompt can be followed."""

from typing import Any

import torch
from torch import Tensor

from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.evaluation.stored_answers import prompt_digest
from calibrl_core.report import Report


def report_visits(report: Report, step: int, batch: StepBatch) -> None:
    """Emit the groups of a step, without their texts."""
    rollouts, groups = batch.rollouts, len(batch.examples)
    lists: dict[str, list[Any]] = {
        "prompts": [prompt_digest(example) for example in batch.examples],
        "ids": [example.id for example in batch.examples],
        "experts": [example.expert is not None for example in batch.examples],
        "passed": batch.passed.sum(-1).tolist(),
        "sizes": [rollouts.group_size] * groups,
        "entropies": _group_means(rollouts.entropies, rollouts.mask, groups),
        "gaps": _group_means(batch.gaps, batch.gap_mask, groups),
        "rareness": [round(value, 5) for value in batch.advantages.abs().mean(-1).tolist()],
    }
    report.emit("visits", step=step, **lists)


def _group_means(values: Tensor, mask: Tensor, groups: int) -> list[float | None]:
    """Return the mean of `values` `[B, T]` under `mask` per group, None for a group without a token."""
    sums = torch.where(mask, values, 0.0).double().reshape(groups, -1).sum(-1)
    counts = mask.reshape(groups, -1).sum(-1)
    return [
        round(total / count, 5) if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)
    ]
