"""Compares updates of one mini-batch: each starts from the same weights, optimizer state and rollouts.

An update is made, measured and taken back: the weights change as in training, so that clipping, moments and weight
decay count, and the change of each token's log-probability is exact and not a linear estimate. Needs the memory of a
training and further copies: of the trained weights, of the optimizer's state, and of the gradient and the change of the
first update.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.expert_mismatch import quadrants
from calibrl_core.diagnostics.gradients import compare_tensors
from calibrl_core.diagnostics.shown import known_gaps, rounded, shortened
from calibrl_core.metrics.expert import Quadrant
from calibrl_core.models.policy import Policy
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.token_logprobs import logprobs_in_parts
from calibrl_core.step.update import Updater
from calibrl_core.variants.facts import ChangedCompletion, ComparedUpdate

OWN = "own"
SHOWN, TOKENS = 8, 256  # completions with their tokens, and tokens of each
CHARACTERS = 2000  # of a prompt


@dataclass(frozen=True)
class Contestant:
    """An algorithm of the comparison, with the batch of the step as it sees it. `changes`: from the run's settings."""

    name: str
    changes: Mapping[str, Any]
    updater: Updater
    batch: StepBatch
    old_logprobs: Tensor | None  # `Updater.recompute_logprobs`


@dataclass(frozen=True)
class StepStart:
    """The run at the start of a step. `step`: from 0."""

    config: TrainConfig
    policy: Policy
    optimizer: torch.optim.Optimizer
    gradient_step: Callable[[], GradientStep]  # returns a fresh one, which has skipped no update
    step: int


class UpdateComparison:
    """The updates of one mini-batch of a step."""

    def __init__(self, start: StepStart, own: Contestant, update: int) -> None:
        """Make the run's own updates before `update` (from 0), and keep the weights and the optimizer's state."""
        self._config, self._policy, self._optimizer = start.config, start.policy, start.optimizer
        self._gradient_step, self._step = start.gradient_step, start.step
        self._own, self._update = own, update
        gradient = start.gradient_step()
        for number in range(update):
            own.updater.gradient_of(own.batch, start.step, number, own.old_logprobs)
            gradient.apply()
        self.rows = own.updater.rollouts_by_update(own.batch)[update]  # [N] long
        self._parameters = list(start.policy.trained.values())
        self._weights = [parameter.detach().clone() for parameter in self._parameters]
        self._moments = copy.deepcopy(start.optimizer.state_dict())
        self._before = self._logprobs()
        self._own_gradient: list[Tensor | None] = []
        self._own_change: list[Tensor | None] = []
        self.changes: list[Tensor] = []  # of each update, [N, T] nats

    @property
    def mask(self) -> Tensor:
        """Return the tokens of the mini-batch's rollouts, `[N, T]` bool."""
        return self._own.batch.rollouts.mask[self.rows]

    def compare(self, one: Contestant) -> ComparedUpdate:
        """Make the update of an algorithm, measure it, and take it back. The first call must be with the run's own."""
        one.updater.gradient_of(one.batch, self._step, self._update, one.old_logprobs)
        gradient = [None if each.grad is None else each.grad.detach().clone() for each in self._parameters]
        step = self._gradient_step()
        norm, applied = step.apply()
        change = [
            parameter.detach() - before for parameter, before in zip(self._parameters, self._weights, strict=True)
        ]
        tokens = self._logprobs() - self._before
        self._take_back()
        step.clear()
        if not self.changes:
            self._own_gradient, self._own_change = gradient, [*change]
        self.changes.append(tokens)
        of_gradient = compare_tensors(self._own_gradient, gradient)
        of_change = compare_tensors(self._own_change, change)
        return ComparedUpdate(
            name=one.name,
            changes=dict(one.changes),
            applied=applied,
            gradient_norm=norm if math.isfinite(norm) else None,
            gradient_cosine=of_gradient.cosine if math.isfinite(norm) else None,
            update_norm=of_change.norms[1],
            update_cosine=of_change.cosine,
            **self._means(tokens),
        )

    def quadrant_tokens(self) -> dict[Quadrant, int]:
        """Return the number of tokens by quadrant."""
        return {name: int(member.sum()) for name, member in self._quadrants().items()}

    def completions(self) -> list[ChangedCompletion]:
        """Return the rollouts with the largest advantages, half of them correct if there are as many."""
        batch, ranked = self._own.batch, self._ranked()
        return [
            ChangedCompletion(
                prompt_id=batch.examples[row // batch.rollouts.group_size].id,
                prompt=shortened(batch.examples[row // batch.rollouts.group_size].question, CHARACTERS),
                passed=bool(batch.passed.flatten()[row]),
                advantage=batch.advantages.flatten()[row].item(),
                tokens=[
                    self._policy.tokenizer.decode([token]) for token in batch.rollouts.tokens[row, :length].tolist()
                ],
                left_out=int(batch.rollouts.mask[row].sum()) - length,
                gaps=known_gaps(batch, row, torch.arange(length)),
                changes=[rounded(change[place, :length]) for change in self.changes],
            )
            for place, row in ranked
            for length in [min(TOKENS, int(batch.rollouts.mask[row].sum()))]
        ]

    def _ranked(self) -> list[tuple[int, int]]:
        """Return the shown rollouts as (place in the mini-batch, row of the batch)."""
        batch, rows = self._own.batch, self.rows.tolist()
        sizes, passed = batch.advantages.flatten().abs().tolist(), batch.passed.flatten().tolist()
        order = sorted(range(len(rows)), key=lambda place: -sizes[rows[place]])
        right = [place for place in order if passed[rows[place]]]
        wrong = [place for place in order if not passed[rows[place]]]
        half = SHOWN // 2
        chosen = [*right[: max(half, SHOWN - len(wrong))], *wrong[: max(half, SHOWN - len(right))]]
        return [(place, rows[place]) for place in chosen]

    def _quadrants(self) -> Mapping[Quadrant, Tensor]:
        """Return the members of each quadrant among the tokens with a gap, `[M]` bool each; empty without a gap."""
        batch, counted = self._own.batch, self._own.batch.gap_mask[self.rows]
        correct = batch.passed.flatten()[self.rows, None].expand_as(counted)[counted]
        return quadrants(batch.gaps[self.rows][counted], correct) if counted.any() else {}

    def _means(self, tokens: Tensor) -> dict[str, Any]:
        """Return the mean changes. tokens: `[N, T]` nats."""
        batch, mask = self._own.batch, self.mask
        correct = batch.passed.flatten()[self.rows, None].expand_as(mask)
        with_gap = tokens[batch.gap_mask[self.rows]]
        return {
            "change": tokens[mask].double().mean().item(),
            "change_correct": _mean(tokens[mask & correct]),
            "change_wrong": _mean(tokens[mask & ~correct]),
            "quadrants": {
                name: with_gap[member].double().mean().item()
                for name, member in self._quadrants().items()
                if member.any()
            },
        }

    def _logprobs(self) -> Tensor:
        """Return the log-probabilities of the mini-batch's rollouts, `[N, T]` nats."""
        rollouts = self._own.batch.rollouts
        owners = (self.rows // rollouts.group_size).tolist()
        return logprobs_in_parts(
            self._policy,
            self._own.batch.examples,
            owners,
            rollouts.tokens[self.rows],
            rollouts.mask[self.rows],
            self._config,
            self._config.rollout.temperature,
        )[0]

    @torch.no_grad()
    def _take_back(self) -> None:
        for parameter, before in zip(self._parameters, self._weights, strict=True):
            parameter.copy_(before)
        self._optimizer.load_state_dict(copy.deepcopy(self._moments))


def _mean(values: Tensor) -> float | None:
    return values.double().mean().item() if values.numel() else None


def changed_settings(own: PolicyGradientSettings, other: PolicyGradientSettings) -> dict[str, Any]:
    """Return the settings of `other` that differ from those of `own`, by name."""
    before, after = own.model_dump(mode="json"), other.model_dump(mode="json")
    return {name: value for name, value in after.items() if name not in before or before[name] != value}


def check_update(contestants: Sequence[Contestant], update: int) -> str | None:
    """Return why an algorithm has no update of this number, or None."""
    for one in contestants:
        count = len(one.updater.rollouts_by_update(one.batch))
        if update >= count:
            return f"update: {one.name} makes {count} updates per pass; choose one of 0 to {count - 1}"
    return None
