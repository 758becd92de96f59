"""The rows that a step learns from, and how they are divided into mini-batches.

`R`: rows; the rollouts first, as sampled, then the experts that join the update. `T`: tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.algorithms.loss_batch import to_width
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.step.token_weights import token_weights

NO_ROW = -1  # the place of an expert that is not in the update


@dataclass(frozen=True)
class UpdateRows:
    """All rows of a step's update, on the policy's device."""

    tokens: Tensor  # [R, T] long
    mask: Tensor  # [R, T] bool, True = the token counts
    sampler_logprobs: Tensor  # [R, T] float, nats, of the rollouts' sampler; of an expert: the policy's
    old_logprobs: Tensor  # [R, T] float, nats, before the step's first update; until recomputed: by the sampler
    advantages: Tensor  # [R] float
    passed: Tensor  # [R] bool
    is_expert: Tensor  # [R] bool
    prompts: Tensor  # [R] long, each row's prompt, an index into the step's examples


def update_rows(batch: StepBatch, *, mask_truncated: bool = False) -> UpdateRows:
    """Return the rollouts of a step and the experts that join them as rows.

    With `mask_truncated`, no token of a truncated rollout counts.
    """
    rollouts, experts = batch.rollouts, batch.experts
    mask = rollouts.mask & ~rollouts.truncated[:, None] if mask_truncated else rollouts.mask
    device = rollouts.mask.device
    joining = torch.zeros(0, dtype=torch.long, device=device)
    if experts.joins is not None:
        joining = experts.joins.nonzero().squeeze(-1)  # [J], prompts
    width = max(rollouts.mask.shape[1], experts.mask.shape[1] if len(joining) else 0)

    def beside(of_rollouts: Tensor, of_experts: Tensor) -> Tensor:
        return torch.cat([to_width(of_rollouts, width), to_width(of_experts[joining], width)])

    expert_advantages = (
        torch.zeros(len(batch.examples), device=device) if experts.advantages is None else experts.advantages
    )
    own = torch.arange(len(batch.examples), device=device).repeat_interleave(rollouts.group_size)
    return UpdateRows(
        tokens=beside(rollouts.tokens, experts.tokens),
        mask=beside(mask, experts.mask),
        sampler_logprobs=beside(rollouts.sampler_logprobs, experts.logprobs),
        old_logprobs=beside(rollouts.logprobs, experts.logprobs),
        advantages=torch.cat([batch.advantages.flatten(), expert_advantages[joining]]).to(rollouts.logprobs.dtype),
        passed=torch.cat([batch.passed.flatten(), torch.ones_like(joining, dtype=torch.bool)]),
        is_expert=torch.arange(len(own) + len(joining), device=device) >= len(own),
        prompts=torch.cat([own, joining]),
    )


@dataclass(frozen=True)
class MiniBatch:
    """The rows of one optimizer update in this process, and the weight of each of their tokens in its loss."""

    rows: Tensor  # [N] long, into UpdateRows
    weights: Tensor  # [N, T] float
    tokens: int  # rollout tokens, skipped rows' among them


def mini_batches(
    rows: UpdateRows,
    settings: PolicyGradientSettings,
    *,
    first_prompt: int,
    max_tokens: int,
    micro_rows: int | None,
    ranks: Ranks,
) -> list[MiniBatch]:
    """Return a step's mini-batches. `first_prompt`: the number of this process's first prompt among all processes'."""
    return [
        MiniBatch(
            rows=kept,
            weights=_weights(rows, places, settings, max_tokens, micro_rows, ranks)[places >= 0],
            tokens=int(rows.mask[kept][~rows.is_expert[kept]].sum()),
        )
        for places in _places(rows, settings, first_prompt, ranks)
        for kept in [places[places >= 0]]
    ]


def _places(rows: UpdateRows, settings: PolicyGradientSettings, first_prompt: int, ranks: Ranks) -> list[Tensor]:
    """Return the row numbers of each mini-batch, group by group: a group's rollouts, then its expert (or NO_ROW).

    Whole groups: a prompt's number modulo `mini_batches`, which does not depend on the number of processes. With
    `mini_batch_rows`, as the published script: consecutive rows, even if that cuts a group.
    """
    groups = _groups(rows, with_experts=settings.needs_experts)
    nothing = rows.prompts.new_zeros(0)
    if settings.mini_batch_rows is not None:
        cut = list(torch.cat(groups).split(settings.mini_batch_rows))
        (largest,) = ranks.max_over([len(cut)])  # a process with fewer rows takes part in every update too
        return cut + [nothing] * (int(largest) - len(cut))
    dealt: list[list[Tensor]] = [[] for _ in range(settings.mini_batches)]
    for index, group in enumerate(groups):
        dealt[(first_prompt + index) % settings.mini_batches].append(group)
    return [torch.cat([nothing, *parts]) for parts in dealt]


def _groups(rows: UpdateRows, *, with_experts: bool) -> list[Tensor]:
    sampled = (~rows.is_expert).nonzero().squeeze(-1)
    prompts = int(rows.prompts.max()) + 1
    groups = list(sampled.view(prompts, -1))
    if not with_experts:
        return groups
    expert_row = torch.full((prompts,), NO_ROW, device=sampled.device)
    experts = rows.is_expert.nonzero().squeeze(-1)
    expert_row[rows.prompts[experts]] = experts
    return [torch.cat([group, expert_row[index, None]]) for index, group in enumerate(groups)]


def _weights(
    rows: UpdateRows,
    places: Tensor,
    settings: PolicyGradientSettings,
    max_tokens: int,
    micro_rows: int | None,
    ranks: Ranks,
) -> Tensor:
    """Return `[N, T]`, one row per place; 0 if the place is empty."""
    mask = rows.mask[places.clamp(min=0)] & (places >= 0)[:, None]
    dtype = rows.old_logprobs.dtype
    if not settings.micro_batch_mean:
        is_expert = rows.is_expert[places.clamp(min=0)][:, None]
        apart = [mask & ~is_expert, mask & is_expert] if settings.averages_experts_apart else [mask]
        weights = [
            token_weights(part, settings.aggregation, max_tokens=max_tokens, sum_over=ranks.sum_over, dtype=dtype)
            for part in apart
        ]
        return torch.stack(weights).sum(0)
    assert micro_rows is not None
    # The published script divides by the micro-batches of a full mini-batch, so that the short last one counts less;
    # its processes then average their gradients.
    parts = mask.split(micro_rows)
    nominal = settings.mini_batch_rows // micro_rows if settings.mini_batch_rows else len(parts)
    each = [token_weights(part, settings.aggregation, max_tokens=max_tokens, dtype=dtype) for part in parts]
    return torch.cat(each) / max(1, nominal) / ranks.world
