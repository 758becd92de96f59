"""One training step: `ReinforcementLearner` for every algorithm that samples, `SupervisedLearner` for the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from calibrl_core.algorithms import PolicyGradientSettings, SupervisedSettings
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example, completed
from calibrl_core.diagnostics import diagnose, histograms
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.histograms import Histogram
from calibrl_core.diagnostics.sampled import SampledGroups
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.host.stop_signal import StopRequested, StopSignal
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import RolloutEngine, SamplesAhead, SamplingRequest
from calibrl_core.step.advantages import step_advantages
from calibrl_core.step.dynamic_sampling import ScoredRollouts, replace_groups
from calibrl_core.step.experts import choose_experts, find_experts, no_experts, with_chosen_experts
from calibrl_core.step.gather import gather_batch, gather_sampled
from calibrl_core.step.image_gains import image_gains
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.phase_clock import PhaseClock
from calibrl_core.step.prompt_source import PromptSource
from calibrl_core.step.token_logprobs import micro_batches, padded_to_equal_passes
from calibrl_core.step.update import Updater
from calibrl_core.verifiers.base import answer_form
from calibrl_core.verifiers.scorer import NoVerdictError, Score, Scorer, check_needed, labels_with

SHOWN_FAILURES = 16  # kept for messages, of each sampling


@dataclass(frozen=True)
class StepResult:
    """Results of a step. The first process has those of all processes; the others lack values that need all."""

    metrics: dict[str, float]
    histograms: dict[str, Histogram] = field(default_factory=dict)
    batch: StepBatch | None = None  # of all processes
    # Share of completions that passed, by the ID of each prompt that this process sampled.
    pass_ratios: dict[str, float] = field(default_factory=dict)
    failed: Sequence[Score] = ()  # without all verdicts, some of those in groups that were sampled and left the step
    moved: dict[str, float] = field(default_factory=dict)  # settings of the algorithm that its control moves, by name


class Learner(Protocol):
    """Takes one step on some examples, of which each process takes its share."""

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        """Update the policy; `step` counts from 0. `examples` are those of all processes."""


@dataclass(frozen=True)
class RolloutParts:
    """The parts of a run that its rollouts need. `steps`: number of steps of the run. `stop`: ends a step early that
    has changed nothing yet."""

    policy: Policy
    engine: RolloutEngine
    scorer: Scorer
    prompts: PromptSource
    ranks: Ranks
    steps: int
    stop: StopSignal = field(default_factory=StopSignal)


class ReinforcementLearner:
    """Samples rollouts, scores them, compares each with its group and its expert, and updates the policy."""

    def __init__(
        self, config: TrainConfig, algorithm: PolicyGradientSettings, parts: RolloutParts, updater: Updater
    ) -> None:
        self._config, self._algorithm, self._updater = config, algorithm, updater
        self._policy, self._engine, self._steps = parts.policy, parts.engine, parts.steps
        self._scorer, self._prompts, self._ranks = parts.scorer, parts.prompts, parts.ranks
        self._stop = parts.stop
        self._begun: int | None = None  # the last step whose rollouts were begun ahead
        self._pass_ratios: dict[str, float] = {}  # of the current step
        self._failed: list[Score] = []  # of the current step, see `StepResult`
        self._needed = labels_with(config.rewards, "drop_group")  # verifiers whose verdicts a group must have
        self._stops = bool(labels_with(config.rewards, "stop"))

    @property
    def algorithm(self) -> PolicyGradientSettings:
        """Return the settings of the algorithm, as they are moved now."""
        return self._algorithm

    @property
    def updater(self) -> Updater:
        """Return what makes the updates."""
        return self._updater

    def sampled(self, step: int, examples: Sequence[Example]) -> ScoredRollouts:
        """Return the groups of a step, which the one process of the run samples for all `examples`."""
        with self._engine.sampling(step):
            return self._rollouts(step, examples, PhaseClock())[0]

    def batch_of(self, step: int, groups: ScoredRollouts) -> StepBatch:
        """Return the batch of a step with these groups."""
        return self._batch(step, 0, groups, PhaseClock())

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        """Take the step: see `Learner.step`.

        Raises:
            StopRequested: in any process, before the update.
        """
        clock, self._pass_ratios, self._failed = PhaseClock(), {}, []
        # The vision features of a step's images are kept: rollouts and experts show the same images.
        with self._policy.images.cached():
            with ExitStack() as sampling:
                with clock("rollout"):
                    sampling.enter_context(self._engine.sampling(step))
                groups, first_prompt, extra = self._rollouts(step, examples, clock)
            if self._ranks.any_process(self._stop()):
                raise StopRequested
            with self._policy.weights.gathered():
                batch = self._batch(step, first_prompt, groups, clock)
                if _due(step + 1, self._config.diagnostics.images_every):  # outside the clock too
                    batch = self._with_image_gains(batch)
        if _due(step, self._config.diagnostics.gradients_every):  # outside the clock: not in perf/step_seconds
            extra |= self._updater.compare_gradients(batch, step, first_prompt)
        old_logprobs = None
        if self._updater.recomputes_logprobs:
            with clock("rescore"):
                old_logprobs = self._updater.recompute_logprobs(batch, step, first_prompt)
        with clock("update"):
            metrics, ratios = self._updater.update(batch, step, first_prompt, old_logprobs)
        (tokens,) = self._ranks.sum_over([int(batch.rollouts.mask.sum())])
        metrics |= {**extra, **clock.metrics(tokens)}
        whole = gather_batch(replace(batch, ratios=ratios), self._ranks, self._policy.device)
        if whole is not None:
            metrics = diagnose(whole) | metrics | self._moving("algorithm/")
        moved = self._move(step, metrics)
        if whole is None:
            return StepResult(metrics, pass_ratios=self._pass_ratios, moved=moved)
        return StepResult(metrics, histograms(whole, self._config), whole, self._pass_ratios, self._failed, moved)

    def _with_image_gains(self, batch: StepBatch) -> StepBatch:
        gains = image_gains(self._policy, batch.examples, batch.rollouts, batch.rewards, self._config)
        return replace(batch, image_gains=gains)

    def _moving(self, prefix: str = "") -> dict[str, float]:
        """Return the settings that the algorithm moves."""
        return {f"{prefix}{name}": getattr(self._algorithm, name) for name in self._algorithm.moving}

    def _move(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Move settings of the algorithm for the next step, in all processes alike; return all that can move."""
        if self._algorithm.moving:  # only the first process has all metrics
            changes = self._ranks.from_first(self._algorithm.moved(step, metrics) if self._ranks.first else {})
            self._algorithm = self._updater.algorithm = self._algorithm.model_copy(update=changes)
        return self._moving()

    def _rollouts(
        self, step: int, examples: Sequence[Example], clock: PhaseClock
    ) -> tuple[ScoredRollouts, int, dict[str, float]]:
        """Return this process's share of the step's groups, the global number of its first prompt, and metrics."""
        first_prompt = self._ranks.my_slice(len(examples)).start
        extra: dict[str, float] = {}
        attempts = self._algorithm.resample_limit()
        # The engine is free for the next step if it has answered this one already, and this one will ask no more.
        free = self._begun == step and not attempts
        if free:
            self._begin(step + 1, clock)
        groups = self._sample(step, 0, examples, clock)
        if self._stops:
            check_needed(self._ranks.gather_everywhere(self._scorer.stop_reason(groups.scores if groups else ())))
        if attempts or self._any_incomplete(groups):
            groups, first_prompt, extra = self._resample(step, groups, attempts, clock)
        if not free:
            self._begin(step + 1, clock)
        assert groups is not None  # a step has a prompt for each process
        return groups, first_prompt, extra

    def _begin(self, step: int, clock: PhaseClock) -> None:
        """Begin to sample the rollouts of `step` with the weights of the current one, if the settings ask for that.

        Nothing of it is in a checkpoint: the order of the data stays at the current step, and the first step after a
        resume samples with its own weights.
        """
        if not self._config.rollout.samples_ahead or step == self._steps:
            return
        assert isinstance(self._engine, SamplesAhead)
        with clock("rollout"):
            examples = self._prompts.upcoming()
            mine = self._ranks.my_slice(len(examples))
            self._engine.begin(examples[mine.start : mine.stop], self._request(step, 0, mine.start))
        self._begun = step

    def _request(self, step: int, attempt: int, first_prompt: int) -> SamplingRequest:
        rollout = self._config.rollout
        return SamplingRequest(
            group_size=rollout.group_size,
            temperature=rollout.temperature,
            max_tokens=rollout.max_completion_tokens,
            sampling=rollout,
            seed=[self._config.seed, step, attempt],
            first_row=first_prompt * rollout.group_size,
        )

    def _any_incomplete(self, groups: ScoredRollouts | None) -> bool:
        """Return if a group of any process lacks a verdict without which it must leave the step."""
        own = groups is not None and not groups.complete(self._needed).all()
        return bool(self._needed) and self._ranks.any_process(bool(own))

    def _resample(
        self, step: int, first: ScoredRollouts | None, attempts: int, clock: PhaseClock
    ) -> tuple[ScoredRollouts, int, dict[str, float]]:
        """Replace refused groups of all processes, and remove those without all verdicts; return this process's share,
        the global number of its first prompt, and metrics of all sampled groups.

        Every process gathers all groups and decides alike, so that all sample the same number of times.
        """
        seen, algorithm = SampledGroups(), self._algorithm

        def complete(groups: ScoredRollouts) -> Tensor:
            return groups.complete(self._needed)

        def gathered(groups: ScoredRollouts | None) -> ScoredRollouts:
            whole = gather_sampled(groups, self._ranks, self._policy.device)
            check_needed([self._scorer.stop_reason(whole.scores)])
            self._failed += [score for score in whole.scores if score.failure][:SHOWN_FAILURES]
            seen.add(self._rewards(whole), whole.rollouts, whole.scores, dropped=int((~complete(whole)).sum()))
            return whole

        def draw(attempt: int, count: int) -> ScoredRollouts | None:
            examples = self._prompts.more_examples(count)
            return gathered(self._sample(step, attempt, examples, clock)) if examples else None

        def keeps(groups: ScoredRollouts) -> Tensor:
            rewards = self._rewards(groups)
            return algorithm.keeps_groups(groups.passed, rewards) if attempts else complete(groups)

        whole = replace_groups(gathered(first), keeps, draw, attempts, complete)
        check_enough(len(whole.examples), algorithm, self._ranks, self._needed)
        mine = self._ranks.my_slice(len(whole.examples))
        return whole.groups(mine), mine.start, seen.metrics() if attempts else seen.dropped_metrics()

    def _sample(self, step: int, attempt: int, examples: Sequence[Example], clock: PhaseClock) -> ScoredRollouts | None:
        """Sample and score this process's share of `examples`; None if its share is empty."""
        mine = self._ranks.my_slice(len(examples))
        examples = examples[mine.start : mine.stop]
        if not examples:
            return None
        with clock("image"):
            self._prompts.prepare(examples)
        # Alone: the processes of a run must leave a step together.
        with clock("rollout"), self._stop.interrupting(self._ranks.world == 1):
            request = self._request(step, attempt, mine.start)
            rollouts = self._engine.generate(examples, request)  # [B, T], B = P * G
        with clock("reward"):
            scored = ScoredRollouts(examples, rollouts, self._scorer.grade(completed(examples, rollouts.texts)))
        ratios = scored.passed.double().mean(-1).tolist()  # [P]
        known = scored.complete({reward.label for reward in self._config.rewards}).tolist()  # [P]
        measured = zip(examples, ratios, known, strict=True)
        self._pass_ratios |= {example.id: ratio for example, ratio, has_all in measured if has_all}
        return scored

    def _rewards(self, groups: ScoredRollouts) -> Tensor:
        """Return the verifiers' rewards plus the algorithm's own term, `[P, G]` float64."""
        rewards = torch.tensor(
            [score.reward for score in groups.scores], dtype=torch.float64, device=self._policy.device
        )  # [B]
        extra = self._algorithm.extra_reward(groups.rollouts, self._config.rollout.max_completion_tokens)
        return (rewards if extra is None else rewards + extra).view(len(groups.examples), -1)

    def _batch(self, step: int, first_prompt: int, groups: ScoredRollouts, clock: PhaseClock) -> StepBatch:
        """Add advantages and experts, all under the policy before the step's first update."""
        examples, rewards, algorithm = groups.examples, self._rewards(groups), self._algorithm
        with clock("expert"):
            uses = algorithm.needs_experts or algorithm.has_guidance or algorithm.learns_from_experts
            measured = uses or _due(step, self._config.diagnostics.experts_every)
            experts = (
                find_experts(self._policy, examples, self._config) if measured else no_experts(examples, rewards.device)
            )
            if algorithm.learns_from_experts:
                chosen = choose_experts(
                    algorithm, examples, seed=self._config.seed, step=step, first_prompt=first_prompt
                )
                experts = with_chosen_experts(
                    experts, chosen, examples, rewards, self._scorer, normalise_by_std=algorithm.normalise_by_std
                )
        return StepBatch(
            examples=examples,
            rollouts=groups.rollouts,
            scores=groups.scores,
            rewards=rewards,
            passed=groups.passed,
            advantages=step_advantages(
                rewards,
                algorithm.advantages,
                normalise_by_std=algorithm.normalise_by_std,
                sum_over=self._ranks.sum_over,
            ),
            experts=experts,
            form=answer_form(self._config.rewards),
        )


def check_enough(groups: int, algorithm: PolicyGradientSettings, ranks: Ranks, labels: Collection[str]) -> None:
    """Check that each process and each mini-batch has a group with all verdicts.

    Raises:
        NoVerdictError: one has none.
    """
    needed = max(ranks.world, 1 if algorithm.mini_batch_rows else algorithm.mini_batches)
    if groups < needed:
        raise NoVerdictError(
            f"rewards: only {groups} groups of the step have verdicts of {', '.join(sorted(labels))} (on_failure: "
            f"drop_group), and an update needs {needed}; see the first failure in the log, fix it, then resume"
        )


def _due(step: int, every: int | None) -> bool:
    """Return true if a measurement every so many steps includes `step`."""
    return every is not None and step % every == 0


class SupervisedLearner:
    """Learns the tokens of the examples' experts."""

    def __init__(
        self,
        config: TrainConfig,
        algorithm: SupervisedSettings,
        policy: Policy,
        gradient: GradientStep,
        prompts: PromptSource,
        ranks: Ranks,
    ) -> None:
        self._config, self._algorithm = config, algorithm
        self._policy, self._gradient = policy, gradient
        self._prompts, self._ranks = prompts, ranks

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        """Take the step: see `Learner.step`."""
        clock = PhaseClock()
        mine = self._ranks.my_slice(len(examples))
        examples = examples[mine.start : mine.stop]
        with clock("image"):
            self._prompts.prepare(examples)
        with clock("update"), self._policy.dropping(self._config.seed, step, self._ranks.rank):
            metrics, tokens = self._update(examples)
        return StepResult({**metrics, **clock.metrics(tokens)})

    def _update(self, examples: Sequence[Example]) -> tuple[dict[str, float], float]:
        """Update on this process's examples; return metrics and the number of tokens, both over all processes."""
        policy, config = self._policy, self._config
        tokens, mask = policy.tokenize_experts(examples, config.rollout.max_completion_tokens)  # [P, E]
        count, prompts = self._ranks.sum_over([int(mask.sum()), len(examples)])
        self._gradient.clear()
        loss_sum = 0.0
        owners = list(range(len(examples)))
        parts = micro_batches(policy, examples, owners, mask.sum(-1).tolist(), config)
        with padded_to_equal_passes(policy, self._ranks, len(parts)):
            for part in parts:
                logprobs = policy.logprobs(examples, part.tolist(), tokens[part], mask[part], temperature=1.0)
                loss = self._algorithm.loss(logprobs, mask[part], count=int(count))
                loss.backward(loss.detach() * 0 + 1)  # NaN gradient if the loss is not finite: see Updater._backward
                loss_sum += loss.item()
        norm, applied = self._gradient.apply()
        (total,) = self._ranks.sum_over([loss_sum])
        metrics = {
            "loss/total": total,
            "loss/grad_norm": norm,
            "loss/skipped_updates": float(not applied),
            "expert/nll": total,
            "length/mean": count / prompts,
        }
        return metrics, count
