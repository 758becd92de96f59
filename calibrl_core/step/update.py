"""The update: from a step's rollouts to new weights, mini-batch by mini-batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.algorithms.kl import kl_k1, kl_k3
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses
from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.gradients import compare_gradients
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models.logprobs import TokenScores
from calibrl_core.models.policy import Policy
from calibrl_core.step.mini_batches import MiniBatch, UpdateRows, mini_batches, update_rows
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.token_logprobs import in_step, micro_batches, score_rows
from calibrl_core.step.update_metrics import Tally

KL = {"k1": kl_k1, "k3": kl_k3}


@dataclass(frozen=True)
class _Losses:
    """One micro-batch's share of its mini-batch's loss. Scalars, with gradient."""

    policy: Tensor
    guidance: Tensor | None
    kl: Tensor | None
    entropy: Tensor | None
    total: Tensor


class Updater:
    """Applies one policy-gradient algorithm to a policy."""

    def __init__(
        self,
        policy: Policy,
        gradient: GradientStep,
        config: TrainConfig,
        reference: Policy | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`reference`: the policy that the run began with, where kl_coef is above 0."""
        assert isinstance(config.algorithm, PolicyGradientSettings)
        self.algorithm = config.algorithm
        self._policy, self._gradient, self._config = policy, gradient, config
        self._reference = reference
        self._ranks = ranks
        optional = {
            "guidance": self.algorithm.has_guidance,
            "kl": self.algorithm.kl_coef > 0,
            "entropy": self.algorithm.entropy_coef > 0,
        }
        self._losses_kept = ["policy", *(name for name, there in optional.items() if there), "total"]

    def update(self, batch: StepBatch, step: int, first_prompt: int = 0) -> tuple[dict[str, float], Tensor]:
        """Take the step's updates; return loss/, clip/, ratio/ and kl/ metrics, and each token's ratio (as StepBatch
        keeps them). `step` counts from 0.

        loss/skipped_updates counts mini-batches whose loss or gradient was not finite: they change no weight. Raises
        NonFiniteError (see `GradientStep`).
        """
        rows = update_rows(batch)
        reference = self._reference_logprobs(batch, rows)
        self._policy.model.train()
        tally = Tally(self._losses_kept, self._ranks, batch.rollouts.mask)
        for mini_batch in self._mini_batches(rows, first_prompt):
            self._gradient.clear()
            parts = self._parts(batch, rows, mini_batch, step)
            with in_step(self._policy, self._ranks, len(parts)):
                for part in parts:
                    self._backward(batch, rows, mini_batch, part, reference, step, tally)
            norm, applied = self._gradient.apply()
            tally.add_mini_batch(mini_batch.tokens, norm, applied)
        return tally.metrics(), tally.ratios

    def compare_gradients(self, batch: StepBatch, step: int, first_prompt: int = 0) -> dict[str, float]:
        """Norms of the policy's and the guidance's gradients, and the cosine between them, on one micro-batch: the
        first of the first mini-batch that has one. Of several processes each takes its own; their sum is compared.

        On-policy and with s of A's sign, guidance is per token a positive multiple of the policy gradient; this shows
        when it says something of its own. Nothing without guidance. Changes no weight.
        """
        if self.algorithm.guidance_weight(step) == 0:
            return {}
        rows = update_rows(batch)
        for mini_batch in self._mini_batches(rows, first_prompt):
            first = self._parts(batch, rows, mini_batch, step)[:1]
            if self._ranks.any(bool(first)):
                break
        else:
            return {}
        self._policy.model.train()
        gradients = []
        for guidance in (False, True):
            self._gradient.clear()
            with in_step(self._policy, self._ranks, len(first)):
                for part in first:
                    losses = self._losses(batch, rows, mini_batch, part, None, step)[0]
                    (losses.guidance if guidance and losses.guidance is not None else losses.policy).backward()
            gradients.append(self._gradient.gradients())
        self._gradient.clear()
        of_policy, of_guidance = gradients
        return compare_gradients(of_policy, of_guidance, lambda sums: self._policy.weights.total(sums, self._ranks))

    def _mini_batches(self, rows: UpdateRows, first_prompt: int) -> list[MiniBatch]:
        return mini_batches(
            rows,
            self.algorithm,
            first_prompt=first_prompt,
            max_tokens=self._config.rollout.max_completion_tokens,
            micro_rows=self._config.micro_batch_rows,
            ranks=self._ranks,
        )

    def _parts(self, batch: StepBatch, rows: UpdateRows, mini_batch: MiniBatch, step: int) -> list[Tensor]:
        """A mini-batch in micro-batches: positions in its rows.

        With A = 0 the policy loss is flat, and so is guidance where |A| weighs it: such rows stay out of the forward
        pass unless the algorithm says that they can move a weight. Their tokens stay in the denominator.
        """
        positions = torch.arange(len(mini_batch.rows))
        if not self.algorithm.needs_all_rows(step):
            positions = (rows.advantages[mini_batch.rows] != 0).nonzero().squeeze(-1).cpu()
        chosen = mini_batch.rows[positions]
        return [positions[part] for part in self._cut(batch, rows, chosen)]

    def _cut(self, batch: StepBatch, rows: UpdateRows, chosen: Tensor) -> list[Tensor]:
        owners, lengths = rows.prompts[chosen].tolist(), rows.mask[chosen].sum(-1).tolist()
        return micro_batches(self._policy, batch.examples, owners, lengths, self._config)

    def _backward(
        self,
        batch: StepBatch,
        rows: UpdateRows,
        mini_batch: MiniBatch,
        part: Tensor,
        reference: Tensor | None,
        step: int,
        tally: Tally,
    ) -> None:
        losses, tokens, scored = self._losses(batch, rows, mini_batch, part, reference, step)
        # A loss that is not finite may have a gradient that is: make it neither, so that the update is left out.
        losses.total.backward(losses.total.detach() * 0 + 1)
        of = mini_batch.rows[part]
        for name in self._losses_kept:
            tally.add_loss(name, getattr(losses, name).item())
        tally.add_rollouts(tokens, scored.logprobs.detach(), rows, of)

    def _losses(
        self,
        batch: StepBatch,
        rows: UpdateRows,
        mini_batch: MiniBatch,
        part: Tensor,
        reference: Tensor | None,
        step: int,
    ) -> tuple[_Losses, TokenLosses, TokenScores]:
        of, algorithm = mini_batch.rows[part], self.algorithm
        scored = score_rows(
            self._policy,
            batch.examples,
            rows,
            of,
            self._config.rollout.temperature,
            with_entropy=algorithm.entropy_coef > 0,
        )
        width = scored.logprobs.shape[1]
        tokens = algorithm.token_losses(self._loss_batch(batch, rows, of, scored))
        weight = mini_batch.weights[part, :width]
        of_rollouts = weight.masked_fill(rows.is_expert[of][:, None], 0.0)
        weighed = tokens.policy if rows.importance is None else tokens.policy * rows.importance[of, :width]
        policy = total = (weighed * weight).sum()
        guidance = kl = entropy = None
        if tokens.guidance is not None:
            guidance = (tokens.guidance * weight).sum()
            total = total + algorithm.guidance_weight(step) * guidance
        if reference is not None:
            old = rows.old_logprobs[of, :width]
            kl = (KL[algorithm.kl_estimator](scored.logprobs, reference[of, :width], old) * of_rollouts).sum()
            total = total + algorithm.kl_coef * kl
        if scored.entropies is not None:
            entropy = (scored.entropies * of_rollouts).sum()
            total = total - algorithm.entropy_coef * entropy
        return _Losses(policy, guidance, kl, entropy, total), tokens, scored

    def _loss_batch(self, batch: StepBatch, rows: UpdateRows, of: Tensor, scored: TokenScores) -> LossBatch:
        width, experts = scored.logprobs.shape[1], batch.experts
        return LossBatch(
            logprobs=scored.logprobs,
            old_logprobs=rows.old_logprobs[of, :width],
            advantages=rows.advantages[of],
            completion_mask=rows.mask[of, :width],
            passed=rows.passed[of],
            is_expert=rows.is_expert[of],
            expert_logprobs=experts.logprobs[rows.prompts[of]],
            expert_mask=experts.mask[rows.prompts[of]],
        )

    @torch.no_grad()
    def _reference_logprobs(self, batch: StepBatch, rows: UpdateRows) -> Tensor | None:
        """`[R, T]` nats under the policy that the run began with; None where the loss does not ask."""
        if self._reference is None:
            return None
        logprobs = torch.zeros_like(rows.old_logprobs)
        temperature = self._config.rollout.temperature
        with self._reference.weights.gathered():
            for part in self._cut(batch, rows, torch.arange(len(rows.prompts))):
                found = score_rows(self._reference, batch.examples, rows, part, temperature).logprobs
                logprobs[part, : found.shape[1]] = found
        return logprobs
