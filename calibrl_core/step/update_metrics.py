"""Metrics of a step's updates, summed over its mini-batches and over the processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from calibrl_core.algorithms.clipping import limited_log_ratios, probability_ratios
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.step.importance import ImportanceWeights

CLIPS = ("low", "high", "dual")


class Tally:
    """Sums of the losses, clips, ratios and the approximate KL of a step.

    Clips, ratios and KL count rollout tokens only, never an expert's. A row left out of the forward pass has a ratio of
    1 and no clip.
    """

    def __init__(self, losses: Sequence[str], ranks: Ranks, rollouts: Tensor) -> None:
        """`losses`: the names of the losses, the same in every process; `rollouts`: the step's mask `[B, T]`."""
        self._ranks = ranks
        self.ratios = torch.full(rollouts.shape, math.nan, device=rollouts.device)  # see StepBatch
        self._updates = self._applied = 0
        self._grad_norm = 0.0
        self._losses = dict.fromkeys(losses, 0.0)
        self._tokens = 0
        self._clipped = dict.fromkeys(CLIPS, 0.0)
        self._excess = self._squares = self._kl = 0.0  # of ratio - 1, of ratio^2 - 1, of -log ratio
        self._highest = 1.0
        # Of the sampler: divergence and its tokens; tokens with an importance weight, and those where the cap acted.
        self._sampler = dict.fromkeys(("divergence", "compared", "weighted", "limited"), 0.0)

    def add_mini_batch(self, tokens: int, grad_norm: float, applied: bool) -> None:
        """Count a mini-batch. `tokens`: its rollout tokens, skipped rows included; `grad_norm`: of all processes."""
        self._tokens += tokens
        self._updates += 1
        self._applied += applied
        self._grad_norm += grad_norm

    def add_loss(self, name: str, value: float) -> None:
        """Add a micro-batch's share of a loss."""
        self._losses[name] += value

    def add_rollouts(self, losses: TokenLosses, batch: LossBatch, index: Tensor) -> None:
        """Add a micro-batch: its input, its token losses, and its rows `index` `[B]` long."""
        mask = batch.completion_mask & ~batch.is_expert[:, None]  # [B, T]
        for name, clipped in zip(CLIPS, (losses.clipped_low, losses.clipped_high, losses.clipped_dual), strict=True):
            self._clipped[name] += float(clipped[mask].sum())
        log_ratios = batch.logprobs.detach() - batch.old_logprobs
        self._keep_ratios(probability_ratios(log_ratios), batch.is_expert, index)
        log_ratio = log_ratios[mask]
        ratio = probability_ratios(log_ratio)
        self._excess += (ratio - 1).sum().item()
        self._squares += (ratio * ratio - 1).sum().item()
        self._kl -= log_ratio.sum().item()
        self._highest = max([self._highest, *([ratio.max().item()] if len(ratio) else [])])

    def add_sampler(
        self, batch: LossBatch, sampler_logprobs: Tensor, importance: ImportanceWeights | None, *, first: bool
    ) -> None:
        """Add the difference between sampler and trainer. sampler_logprobs: `[B, T]` nats, of the same tokens.

        The divergence compares one policy computed in two ways, so only micro-batches of the `first` update count.
        """
        mask = batch.completion_mask & ~batch.is_expert[:, None]  # [B, T]
        if first:
            log_ratio = limited_log_ratios(batch.logprobs.detach() - sampler_logprobs)[mask].double()
            self._sampler["divergence"] += (log_ratio.expm1() - log_ratio).sum().item()
            self._sampler["compared"] += len(log_ratio)
        if importance is not None:
            self._sampler["weighted"] += int(mask.sum())
            self._sampler["limited"] += int((importance.limited & mask).sum())

    def _keep_ratios(self, ratios: Tensor, is_expert: Tensor, index: Tensor) -> None:
        width = min(ratios.shape[1], self.ratios.shape[1])  # an expert's row may be longer than any rollout
        self.ratios[index[~is_expert], :width] = ratios[~is_expert, :width].to(self.ratios.dtype)

    def metrics(self) -> dict[str, float]:
        """Return loss/ (means over the updates), clip/ (shares of rollout tokens), ratio/ and kl/ metrics."""
        names = [*self._losses]
        sums = [self._losses[name] for name in names]
        sums += [float(self._tokens), self._excess, self._squares, self._kl, *self._clipped.values()]
        totals = self._ranks.sum_over([*sums, *self._sampler.values()])
        (highest,) = self._ranks.max_over([self._highest])
        tokens, excess, squares, kl, *clips = totals[len(names) : len(sums)]
        tokens = max(1.0, tokens)  # 0 if every rollout is truncated and masked
        divergence, compared, weighted, limited = totals[len(sums) :]
        sampler = {"kl/sampler": divergence / compared} if compared else {}
        sampler |= {"clip/sampler_share": limited / weighted} if weighted else {}
        return {
            **sampler,
            **{f"loss/{name}": value / self._updates for name, value in zip(names, totals, strict=False)},
            "loss/grad_norm": self._grad_norm / self._updates,
            "loss/skipped_updates": float(self._updates - self._applied),
            **{f"clip/{name}_share": count / tokens for name, count in zip(CLIPS, clips, strict=True)},
            "ratio/mean": 1 + excess / tokens,
            "ratio/max": highest,
            "ratio/ess": (tokens + excess) ** 2 / (tokens * (tokens + squares)),
            "kl/approx": kl / tokens,
        }
