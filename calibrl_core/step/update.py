"""The update of a step: from rollouts to new weights, one mini-batch after another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.algorithms.kl import kl_k1, kl_k3
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses
from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.gradients import compare_gradients, compare_tensors
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models.logprobs import TokenLogprobs
from calibrl_core.models.policy import Policy
from calibrl_core.step.importance import ImportanceWeights, importance_weights
from calibrl_core.step.mini_batches import MiniBatch, UpdateRows, mini_batches, update_rows
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.token_logprobs import micro_batches, padded_to_equal_passes, row_logprobs
from calibrl_core.step.update_metrics import Tally

KL = {"k1": kl_k1, "k3": kl_k3}


@dataclass(frozen=True)
class _StepInput:
    """Input of a step's update, the same for all its mini-batches."""

    batch: StepBatch
    rows: UpdateRows  # R rows
    step: int  # from 0
    # True: no update precedes these passes, so each pass gives its own old log-probabilities. False: those of `rows`.
    before_updates: bool
    reference: Tensor | None = None  # [R, T] float, nats, under the policy that the run began with


@dataclass(frozen=True)
class _MicroBatch:
    """Rows of one forward and backward pass."""

    rows: Tensor  # [B] long, into UpdateRows
    weights: Tensor  # [B, T] float, of each token in the mini-batch's loss


@dataclass(frozen=True)
class _Losses:
    """One micro-batch's share of its mini-batch's loss. Scalars, with gradient."""

    policy: Tensor
    guidance: Tensor | None
    kl: Tensor | None
    entropy: Tensor | None
    total: Tensor


@dataclass(frozen=True)
class _Evaluated:
    """One micro-batch after its forward pass."""

    losses: _Losses
    batch: LossBatch
    tokens: TokenLosses
    importance: ImportanceWeights | None  # of the policy loss; None: not corrected


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
        """`reference`: the policy that the run began with, if the algorithm `needs_reference`."""
        assert isinstance(config.algorithm, PolicyGradientSettings)
        self.algorithm = config.algorithm
        self._policy, self._gradient, self._config = policy, gradient, config
        self._reference = reference
        self._ranks = ranks
        # In float32 the trainer's engine and the update agree within 2e-5 nats: its log-probabilities of the policy are
        # the old ones.
        self._sampler_is_exact = config.rollout.engine == "shared_prefill" and not policy.bfloat16
        self._samples_policy = self._sampler_is_exact and config.rollout.keeps_distribution
        passes, rows = self.algorithm.epochs_per_step, self.algorithm.mini_batch_rows
        # Each pass of a single update gives its own old log-probabilities, unless dropout changes them.
        self._own_logprobs = self.algorithm.mini_batches == passes == 1 and rows is None and not policy.drops
        optional = {
            "guidance": self.algorithm.has_guidance,
            "kl": self.algorithm.kl_coef > 0,
            "entropy": self.algorithm.entropy_coef > 0,
        }
        self._loss_names = ["policy", *(name for name, used in optional.items() if used), "total"]

    @property
    def recomputes_logprobs(self) -> bool:
        """Return if `update` needs the result of `recompute_logprobs`: the sampler is not exact, and updates follow
        the first or adapters have dropout.
        """
        return not (self._sampler_is_exact or self._own_logprobs)

    @torch.no_grad()
    def recompute_logprobs(self, batch: StepBatch, step: int, first_prompt: int = 0) -> Tensor:
        """Return the policy's own log-probabilities of the update's rows, `[R, T]` float, nats; arguments as `update`.

        The passes are those of the update, row by row and pack by pack, so that in any precision the ratios of the
        first mini-batch are exactly 1. Rows without a pass keep those that the sampler computed.
        """
        rows = update_rows(batch, mask_truncated=self.algorithm.mask_truncated)
        inputs = _StepInput(batch, rows, step, before_updates=True)
        logprobs = rows.old_logprobs.clone()
        with self._policy.weights.gathered():
            for mini_batch in self._mini_batches(rows, first_prompt):
                for part in self._micro_batches(inputs, mini_batch):
                    output = row_logprobs(
                        self._policy, batch.examples, rows, part.rows, self._config.rollout.temperature
                    ).logprobs
                    logprobs[part.rows, : output.shape[1]] = output
        return logprobs

    def update(
        self, batch: StepBatch, step: int, first_prompt: int = 0, old_logprobs: Tensor | None = None
    ) -> tuple[dict[str, float], Tensor]:
        """Take the step's updates; return loss/, clip/, ratio/ and kl/ metrics, and `StepBatch.ratios` `[B, T]`.

        Args:
            batch: this process's rollouts of the step.
            step: from 0.
            first_prompt: the number of this process's first prompt among those of all processes.
            old_logprobs: `[R, T]` float, nats, the result of `recompute_logprobs` if `recomputes_logprobs`.

        loss/skipped_updates counts mini-batches whose loss or gradient was not finite: they change no weight.

        Raises:
            NonFiniteError: see `GradientStep`.
        """
        inputs = self._inputs(batch, step, old_logprobs)
        tally = Tally(self._loss_names, self._ranks, batch.rollouts.mask)
        batches = self._mini_batches(inputs.rows, first_prompt) * self.algorithm.epochs_per_step
        with self._policy.dropping(self._config.seed, step, self._ranks.rank):
            for number, mini_batch in enumerate(batches):
                self._sum_gradient(inputs, mini_batch, tally, first=number == 0)
                norm, applied = self._gradient.apply()
                tally.add_mini_batch(mini_batch.tokens, norm, applied)
        return tally.metrics(), tally.ratios

    def _inputs(self, batch: StepBatch, step: int, old_logprobs: Tensor | None) -> _StepInput:
        rows = update_rows(batch, mask_truncated=self.algorithm.mask_truncated)
        if old_logprobs is not None:
            rows = replace(rows, old_logprobs=old_logprobs)
        own = self._own_logprobs and not self._sampler_is_exact
        return _StepInput(batch, rows, step, own, self._reference_logprobs(batch, rows))

    def _sum_gradient(self, inputs: _StepInput, mini_batch: MiniBatch, tally: Tally, *, first: bool) -> None:
        """Leave the gradient of a mini-batch in the parameters. `first`: it is that of the step's first update."""
        self._gradient.clear()
        parts = self._micro_batches(inputs, mini_batch)
        with padded_to_equal_passes(self._policy, self._ranks, len(parts)):
            for part in parts:
                self._backward(inputs, part, tally, first=first)

    def rollouts_by_update(self, batch: StepBatch) -> list[Tensor]:
        """Return the rows of the rollouts of each update of a pass over a whole step, `[N]` long each."""
        rows = update_rows(batch, mask_truncated=self.algorithm.mask_truncated)
        return [one.rows[~rows.is_expert[one.rows]] for one in self._mini_batches(rows, 0)]

    def gradient_of(self, batch: StepBatch, step: int, number: int, old_logprobs: Tensor | None = None) -> None:
        """Leave the gradient of one update of a pass over a whole step in the parameters; arguments as `update`.

        `number`: of the update, from 0. The weights stay as they are.
        """
        inputs = self._inputs(batch, step, old_logprobs)
        tally = Tally(self._loss_names, self._ranks, batch.rollouts.mask)
        with self._policy.dropping(self._config.seed, step, self._ranks.rank):
            self._sum_gradient(inputs, self._mini_batches(inputs.rows, 0)[number], tally, first=number == 0)

    def group_gradient_norms(self, batch: StepBatch, step: int, old_logprobs: Tensor | None = None) -> list[float]:
        """Return the L2 norm of each group's part of the gradients of a pass over a whole step, one number per group;
        arguments as `update`.

        A row keeps its weights in the loss of its mini-batch. All parts are those of the current weights, which stay as
        they are.
        """
        inputs = self._inputs(batch, step, old_logprobs)
        tally = Tally(self._loss_names, self._ranks, batch.rollouts.mask)
        norms = []
        with self._policy.dropping(self._config.seed, step, self._ranks.rank):
            batches = self._mini_batches(inputs.rows, 0)
            for prompt in range(len(batch.examples)):
                self._gradient.clear()
                for mini_batch in batches:
                    own = inputs.rows.prompts[mini_batch.rows] == prompt
                    part_of = replace(mini_batch, rows=mini_batch.rows[own], weights=mini_batch.weights[own])
                    for part in self._micro_batches(inputs, part_of):
                        self._backward(inputs, part, tally, first=True)
                gradient = self._gradient.take_gradients()
                norms.append(compare_tensors(gradient, gradient).norms[0])
        return norms

    def compare_gradients(self, batch: StepBatch, step: int, first_prompt: int = 0) -> dict[str, float]:
        """Compare the gradients of policy and guidance loss on one micro-batch; nothing without guidance.

        Returns their norms, and the cosine between them. The micro-batch is the first of the first mini-batch that has
        one; with several processes each takes its own, and the sums are compared. Changes no weight.

        If the rollouts are on-policy and s has the sign of A, the guidance gradient of each token is a positive
        multiple of its policy gradient. A cosine below 1 then shows another direction.
        """
        if self.algorithm.guidance_weight(step) == 0:
            return {}
        rows = update_rows(batch, mask_truncated=self.algorithm.mask_truncated)
        inputs = _StepInput(batch, rows, step, before_updates=not self._sampler_is_exact)
        for mini_batch in self._mini_batches(rows, first_prompt):
            first = self._micro_batches(inputs, mini_batch)[:1]
            if self._ranks.any_process(bool(first)):
                break
        else:
            return {}
        gradients = []
        for guidance in (False, True):
            self._gradient.clear()
            with padded_to_equal_passes(self._policy, self._ranks, len(first)):
                for part in first:
                    losses = self._evaluate(inputs, part).losses
                    (losses.guidance if guidance and losses.guidance is not None else losses.policy).backward()
            gradients.append(self._gradient.take_gradients())
        of_policy, of_guidance = gradients
        return compare_gradients(
            of_policy, of_guidance, lambda sums: self._policy.weights.sum_over_shards(sums, self._ranks)
        )

    def _mini_batches(self, rows: UpdateRows, first_prompt: int) -> list[MiniBatch]:
        return mini_batches(
            rows,
            self.algorithm,
            first_prompt=first_prompt,
            max_tokens=self._config.rollout.max_completion_tokens,
            micro_rows=self._config.micro_batch_rows,
            ranks=self._ranks,
        )

    def _micro_batches(self, inputs: _StepInput, mini_batch: MiniBatch) -> list[_MicroBatch]:
        """Divide a mini-batch into micro-batches that fit in memory.

        With A = 0 the policy loss is flat, and so is guidance weighted by |A|: such rows skip the forward pass unless
        the algorithm says that they can move a weight. Their tokens stay in the denominator. Rows without a token that
        counts skip it too.
        """
        rows = inputs.rows
        moving = rows.mask[mini_batch.rows].any(-1)  # [N]
        if not self.algorithm.needs_all_rows(inputs.step):
            moving &= rows.advantages[mini_batch.rows] != 0
        positions = moving.nonzero().squeeze(-1).cpu()  # into the mini-batch's rows
        parts = self._cut(inputs.batch, rows, mini_batch.rows[positions])
        return [_MicroBatch(mini_batch.rows[positions[part]], mini_batch.weights[positions[part]]) for part in parts]

    def _cut(self, batch: StepBatch, rows: UpdateRows, indices: Tensor) -> list[Tensor]:
        """Divide the rows `indices` `[N]` into micro-batches, each a list of positions in `indices`."""
        owners, lengths = rows.prompts[indices].tolist(), rows.mask[indices].sum(-1).tolist()
        return micro_batches(self._policy, batch.examples, owners, lengths, self._config)

    def _backward(self, inputs: _StepInput, part: _MicroBatch, tally: Tally, *, first: bool) -> None:
        """Add a micro-batch's gradient to the parameters, and its figures to `tally`. `first`: of the first update."""
        evaluated = self._evaluate(inputs, part)
        losses = evaluated.losses
        # A loss that is not finite can have a finite gradient: make it NaN too, so that the update is skipped.
        losses.total.backward(losses.total.detach() * 0 + 1)
        for name in self._loss_names:
            tally.add_loss(name, getattr(losses, name).item())
        tally.add_rollouts(evaluated.tokens, evaluated.batch, part.rows)
        sampler_logprobs = inputs.rows.sampler_logprobs[part.rows, : evaluated.batch.logprobs.shape[1]]
        tally.add_sampler(evaluated.batch, sampler_logprobs, evaluated.importance, first=first)

    def _evaluate(self, inputs: _StepInput, part: _MicroBatch) -> _Evaluated:
        """Run the forward pass of a micro-batch. T: its longest row."""
        rows, index, algorithm = inputs.rows, part.rows, self.algorithm
        temperature, with_entropy = self._config.rollout.temperature, algorithm.entropy_coef > 0
        output = row_logprobs(self._policy, inputs.batch.examples, rows, index, temperature, with_entropy=with_entropy)
        width = output.logprobs.shape[1]
        batch = self._loss_batch(inputs, index, output)
        tokens = algorithm.token_losses(batch)
        importance = self._importance(batch, rows.sampler_logprobs[index, :width])
        weight = part.weights[:, :width]  # [B, T]
        rollout_weight = weight.masked_fill(rows.is_expert[index][:, None], 0.0)  # KL and entropy: not on expert rows
        weighed = tokens.policy if importance is None else tokens.policy * importance.values
        policy = (weighed * weight).sum()
        total = algorithm.policy_weight(inputs.step) * policy
        guidance = kl = entropy = None
        if tokens.guidance is not None:
            guidance = (tokens.guidance * weight).sum()
            total = total + algorithm.guidance_weight(inputs.step) * guidance
        if inputs.reference is not None:
            reference = inputs.reference[index, :width]
            kl = (KL[algorithm.kl_estimator](output.logprobs, reference, batch.old_logprobs) * rollout_weight).sum()
            total = total + algorithm.kl_coef * kl
        if output.entropies is not None:
            entropy = (output.entropies * rollout_weight).sum()
            total = total - algorithm.entropy_coef * entropy
        return _Evaluated(_Losses(policy, guidance, kl, entropy, total), batch, tokens, importance)

    def _importance(self, batch: LossBatch, sampler_logprobs: Tensor) -> ImportanceWeights | None:
        """Return the importance weights of a micro-batch, 1 on expert rows. sampler_logprobs: `[B, T]` nats."""
        settings = self._config.rollout
        if self._samples_policy or settings.importance_correction == "none":
            return None
        sampled = batch.completion_mask & ~batch.is_expert[:, None]
        weights = importance_weights(
            batch.old_logprobs, sampler_logprobs, sampled, settings.importance_correction, settings.importance_cap
        )
        return replace(weights, values=weights.values.masked_fill(batch.is_expert[:, None], 1.0))

    def _loss_batch(self, inputs: _StepInput, index: Tensor, output: TokenLogprobs) -> LossBatch:
        rows, width, experts = inputs.rows, output.logprobs.shape[1], inputs.batch.experts
        return LossBatch(
            logprobs=output.logprobs,
            old_logprobs=output.logprobs.detach() if inputs.before_updates else rows.old_logprobs[index, :width],
            advantages=rows.advantages[index],
            completion_mask=rows.mask[index, :width],
            passed=rows.passed[index],
            is_expert=rows.is_expert[index],
            expert_logprobs=experts.logprobs[rows.prompts[index]],  # [B, E]
            expert_mask=experts.mask[rows.prompts[index]],  # [B, E]
        )

    @torch.no_grad()
    def _reference_logprobs(self, batch: StepBatch, rows: UpdateRows) -> Tensor | None:
        """Return `[R, T]` nats under the policy that the run began with; None if the loss does not need them."""
        if self._reference is None:
            return None
        logprobs = torch.zeros_like(rows.old_logprobs)
        temperature = self._config.rollout.temperature
        with self._reference.weights.gathered():
            counted = rows.mask.any(-1).nonzero().squeeze(-1).cpu()
            for part in self._cut(batch, rows, counted):
                index = counted[part]
                output = row_logprobs(self._reference, batch.examples, rows, index, temperature).logprobs
                logprobs[index, : output.shape[1]] = output
        return logprobs
