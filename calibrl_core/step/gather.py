"""Gathers the parts of a step from all processes: metrics describe what all processes sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from functools import reduce
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from calibrl_core.algorithms.loss_batch import to_width
from calibrl_core.diagnostics.base import Experts, ImageGains, StepBatch
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.step.dynamic_sampling import ScoredRollouts, concatenate

T = TypeVar("T")
CPU = torch.device("cpu")


def gather_sampled(groups: ScoredRollouts | None, ranks: Ranks, device: torch.device) -> ScoredRollouts:
    """Return the groups of all processes, in every process. `groups` is None if this process has no prompt."""
    if ranks.world == 1 and groups is not None:
        return groups
    parts = ranks.gather_everywhere(to_device(groups, CPU))
    return to_device(reduce(concatenate, [part for part in parts if part is not None]), device)


def gather_batch(batch: StepBatch, ranks: Ranks, device: torch.device) -> StepBatch | None:
    """Return the step's batch of all processes in the first process, None in the others."""
    if ranks.world == 1:
        return batch
    parts = ranks.gather(to_device(batch, CPU))
    return None if parts is None else to_device(_concatenate_batches(parts), device)


def to_device(value: T, device: torch.device) -> T:
    """Return a copy of a dataclass with all its tensors, also those of nested dataclasses, on `device`."""
    if isinstance(value, Tensor):
        return cast(T, value.to(device))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed: dict[str, Any] = {field.name: to_device(getattr(value, field.name), device) for field in fields(value)}
    return replace(value, **changed)


def _concatenate_batches(parts: Sequence[StepBatch]) -> StepBatch:
    sampled = reduce(concatenate, [ScoredRollouts(part.examples, part.rollouts, part.scores) for part in parts])
    width = sampled.rollouts.mask.shape[1]
    ratios = [to_width(part.ratios, width) for part in parts if part.ratios is not None]
    return StepBatch(
        examples=sampled.examples,
        rollouts=sampled.rollouts,
        scores=sampled.scores,
        rewards=torch.cat([part.rewards for part in parts]),
        passed=torch.cat([part.passed for part in parts]),
        advantages=torch.cat([part.advantages for part in parts]),
        experts=_concatenate_experts([part.experts for part in parts]),
        ratios=torch.cat(ratios) if ratios else None,
        image_gains=_concatenate_gains(parts, width),
        form=parts[0].form,
    )


def _concatenate_gains(parts: Sequence[StepBatch], width: int) -> ImageGains | None:
    """Return the image gains of all parts, `[B, width]`; NaN for a part without an image."""
    if all(part.image_gains is None for part in parts):
        return None

    def whole(name: str) -> Tensor:
        rows = [part.rollouts.logprobs.new_full((len(part.rollouts.mask), width), math.nan) for part in parts]
        for part, row in zip(parts, rows, strict=True):
            if part.image_gains is not None:
                measured = getattr(part.image_gains, name)
                row[:, : measured.shape[1]] = measured
        return torch.cat(rows)

    return ImageGains(*(whole(change.name) for change in fields(ImageGains)))


def _concatenate_experts(parts: Sequence[Experts]) -> Experts:
    width = max(part.mask.shape[1] for part in parts)
    whole = Experts(
        *(
            torch.cat([to_width(getattr(part, name), width) for part in parts])
            for name in ("tokens", "mask", "logprobs", "entropies")
        )
    )
    joins = [part.joins for part in parts if part.joins is not None]
    advantages = [part.advantages for part in parts if part.advantages is not None]
    if not joins:
        return whole
    return replace(whole, joins=torch.cat(joins), advantages=torch.cat(advantages))
