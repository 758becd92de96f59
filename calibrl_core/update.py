"""The update: from a step's rollouts to new weights, mini-batch by mini-batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calibrl_core.aggregation import token_weights
from calibrl_core.algorithms import SFT, CalibRL
from calibrl_core.algorithms.base import LossBatch, TokenLosses
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.optimizer import GradientStep


class _Tally:
    """Sums over a step's mini-batches. Clips and ratios count rollout tokens; a row left out of the forward pass has
    a ratio of 1 and no clip."""

    def __init__(self) -> None:
        self.updates = 0
        self.losses = dict.fromkeys(("loss/policy", "loss/guidance", "loss/total", "loss/grad_norm"), 0.0)
        self._tokens = 0
        self._clipped = dict.fromkeys(("clip/low_share", "clip/high_share", "clip/dual_share"), 0)
        self._ratio_excess = 0.0
        self._ratio_max = 1.0

    def add_mini_batch(self, tokens: int) -> None:
        self._tokens += tokens
        self.updates += 1

    def add_micro_batch(self, losses: TokenLosses, ratio: Tensor, mask: Tensor) -> None:
        clips = (losses.clipped_low, losses.clipped_high, losses.clipped_dual)
        for name, clipped in zip(self._clipped, clips, strict=True):
            self._clipped[name] += int(clipped[mask].sum())
        self._ratio_excess += (ratio[mask] - 1).sum().item()
        self._ratio_max = max(self._ratio_max, ratio[mask].max().item())

    def metrics(self) -> dict[str, float]:
        return {
            **{name: total / self.updates for name, total in self.losses.items()},
            **{name: count / self._tokens for name, count in self._clipped.items()},
            "ratio/mean": 1 + self._ratio_excess / self._tokens,
            "ratio/max": self._ratio_max,
        }


class Updater:
    """Applies one policy-gradient algorithm to a policy."""

    def __init__(self, policy: Policy, gradient: GradientStep, config: TrainConfig) -> None:
        assert not isinstance(config.algorithm, SFT)
        self.algorithm = config.algorithm
        self._policy = policy
        self._gradient = gradient
        self._temperature = config.rollout.temperature
        self._micro_batch_rows = config.micro_batch_rows

    def update(self, examples: Sequence[Example], batch: StepBatch, step: int) -> dict[str, float]:
        """Take the step's updates; return loss/, clip/ and ratio/ metrics. `step` counts from 0.

        loss/skipped_updates counts mini-batches whose gradient was not finite: they change no weight. Raises
        NonFiniteError (see `GradientStep`).
        """
        self._policy.model.train()
        tally = _Tally()
        applied = 0
        for rows in _mini_batches(len(examples), batch.rollouts.group_size, self.algorithm.mini_batches):
            self._backward(examples, batch, rows, step, tally)
            norm, was_applied = self._gradient.apply()
            tally.losses["loss/grad_norm"] += norm
            applied += was_applied
        return {**tally.metrics(), "loss/skipped_updates": float(tally.updates - applied)}

    def _backward(self, examples: Sequence[Example], batch: StepBatch, rows: Tensor, step: int, tally: _Tally) -> None:
        mask = batch.rollouts.mask[rows]
        weights = token_weights(mask, self.algorithm.aggregation)
        guidance_coef = self._guidance_coef(step)
        self._gradient.clear()
        learning = self._rows_with_gradient(batch, rows, guidance_coef)
        if not len(learning):
            self._gradient.fill_with_zeros()
        for part in torch.split(learning, self._micro_batch_rows or len(rows)) if len(learning) else ():
            losses = self._micro_batch(examples, batch, rows[part], tally)
            weight = weights[part, : losses.policy.shape[1]]
            policy_loss = (losses.policy * weight).sum()
            total = policy_loss
            if losses.guidance is not None:
                guidance_loss = (losses.guidance * weight).sum()
                total = policy_loss + guidance_coef * guidance_loss
                tally.losses["loss/guidance"] += guidance_loss.item()
            tally.losses["loss/policy"] += policy_loss.item()
            tally.losses["loss/total"] += total.item()
            total.backward()
        tally.add_mini_batch(int(mask.sum()))

    def _guidance_coef(self, step: int) -> float:
        if isinstance(self.algorithm, CalibRL) and step >= self.algorithm.guidance_start_step:
            return self.algorithm.guidance_coef
        return 0.0

    def _rows_with_gradient(self, batch: StepBatch, rows: Tensor, guidance_coef: float) -> Tensor:
        """Positions in `rows` that can move a weight: with A = 0 the policy loss is flat, and so is guidance where |A|
        weighs it. They are left out of the forward pass, not out of the denominator."""
        unweighted = isinstance(self.algorithm, CalibRL) and not self.algorithm.rareness_weighting
        if unweighted and guidance_coef > 0:
            return torch.arange(len(rows))
        return (batch.advantages.flatten()[rows] != 0).nonzero().squeeze(-1).cpu()

    def _micro_batch(self, examples: Sequence[Example], batch: StepBatch, rows: Tensor, tally: _Tally) -> TokenLosses:
        rollouts = batch.rollouts
        mask = rollouts.mask[rows]
        length = int(mask.sum(-1).max())
        mask = mask[:, :length]
        owners = (rows // rollouts.group_size).tolist()
        logprobs = self._policy.logprobs(examples, owners, rollouts.tokens[rows, :length], mask, self._temperature)
        old_logprobs = rollouts.logprobs[rows, :length]
        losses = self.algorithm.token_losses(
            LossBatch(
                logprobs=logprobs,
                old_logprobs=old_logprobs,
                advantages=batch.advantages.flatten()[rows].float(),
                completion_mask=mask,
                passed=batch.passed.flatten()[rows],
                expert_logprobs=batch.expert_logprobs[rows],
                expert_mask=batch.expert_mask[rows],
            )
        )
        tally.add_micro_batch(losses, (logprobs.detach() - old_logprobs).exp(), mask)
        return losses


def _mini_batches(prompts: int, group_size: int, count: int) -> list[Tensor]:
    """Row numbers of each mini-batch: whole groups, divided as evenly as they go."""
    return [
        (part[:, None] * group_size + torch.arange(group_size)).flatten()
        for part in torch.arange(prompts).tensor_split(count)
    ]
