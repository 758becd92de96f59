"""One step of each kind of learning: reinforcement (any policy-gradient algorithm) and supervised."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from calibrl_core.algorithms import DAPO, SFT
from calibrl_core.algorithms.dapo import overlong_penalty
from calibrl_core.algorithms.luffy import LearnsFromExperts
from calibrl_core.config import TrainConfig
from calibrl_core.data.order import DataOrder
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics import diagnose, histograms
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.sampled import SampledGroups
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import RolloutEngine
from calibrl_core.step.advantages import group_advantages
from calibrl_core.step.dynamic_sampling import Sampled, fill_with_mixed
from calibrl_core.step.experts import choose_experts, find_experts, joined_experts
from calibrl_core.step.gather import gather_batch, gather_sampled
from calibrl_core.step.importance import importance_weights, rescored
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.token_logprobs import in_step, micro_batches
from calibrl_core.step.update import Updater
from calibrl_core.verifiers.scorer import Scorer

GRADIENT_STEPS = 20  # between two comparisons of the policy's and the guidance's gradients

Histogram = tuple[list[float], list[int]]  # edges, counts


@dataclass(frozen=True)
class StepResult:
    """What a step has to tell, in the first process; the others know of their own part only, and leave it out."""

    metrics: dict[str, float]
    histograms: dict[str, Histogram] = field(default_factory=dict)
    batch: StepBatch | None = None  # of all processes


class Learner(Protocol):
    """Takes one step on some examples, of which each process takes its share."""

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        """Update the policy; `step` counts from 0. `examples` are those of all processes."""


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    def metrics(self, tokens: float) -> dict[str, float]:
        total = sum(self.seconds.values())
        phases = {f"perf/{phase}_seconds": seconds for phase, seconds in self.seconds.items()}
        return {**phases, "perf/step_seconds": total, "perf/tokens_per_second": tokens / total}


class ReinforcementLearner:
    """Roll out, score, compare with the group and the expert, update."""

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        engine: RolloutEngine,
        gradient: GradientStep,
        scorer: Scorer,
        order: DataOrder,
        reference: Policy | None,
        ranks: Ranks,
    ) -> None:
        assert not isinstance(config.algorithm, SFT)
        self._config, self._algorithm = config, config.algorithm
        self._policy, self._engine, self._scorer, self._order, self._ranks = policy, engine, scorer, order, ranks
        self._updater = Updater(policy, gradient, config, reference, ranks)

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        clock = _Clock()
        first_prompt = self._ranks.share(len(examples)).start
        extra: dict[str, float] = {}
        with self._policy.weights.gathered(), self._policy.images.kept():  # the experts show the same images
            sampled = self._sample(step, 0, examples, clock)
            if isinstance(self._algorithm, DAPO) and self._algorithm.dynamic_sampling:
                sampled, extra = self._resample(step, sampled, clock)
            assert sampled is not None  # a step has a prompt for each process
            batch = self._batch(step, first_prompt, sampled, clock)
        if step % GRADIENT_STEPS == 0:  # not in the step's time: it is for people only
            extra |= self._updater.compare_gradients(batch, step, first_prompt)
        with clock("update"):
            metrics, ratios = self._updater.update(batch, step, first_prompt)
        (tokens,) = self._ranks.total([int(batch.rollouts.mask.sum())])
        metrics |= {**extra, **clock.metrics(tokens)}
        whole = gather_batch(replace(batch, ratios=ratios), self._ranks, self._policy.device)
        if whole is None:
            return StepResult(metrics)
        return StepResult(diagnose(whole) | metrics, histograms(whole, self._config), whole)

    def _resample(self, step: int, sampled: Sampled | None, clock: _Clock) -> tuple[Sampled, dict[str, float]]:
        """Dynamic sampling over the prompts of all processes; this one's share, and metrics of all that was sampled."""
        assert isinstance(self._algorithm, DAPO)
        seen = SampledGroups()

        def gathered(own: Sampled | None) -> Sampled:
            whole = gather_sampled(own, self._ranks, self._policy.device)
            seen.add(self._rewards(whole), whole.rollouts, whole.scores)
            return whole

        def draw(attempt: int, count: int) -> Sampled:
            return gathered(self._sample(step, attempt, self._order.more(step, attempt, count), clock))

        whole = fill_with_mixed(gathered(sampled), draw, self._algorithm.max_resamples)
        return whole.groups(self._ranks.share(len(whole.examples))), seen.metrics()

    def _sample(self, step: int, attempt: int, examples: Sequence[Example], clock: _Clock) -> Sampled | None:
        """Scored rollouts of this process's share of `examples`; None where they are too few for it to have one."""
        rollout = self._config.rollout
        place = self._ranks.share(len(examples))
        examples = examples[place.start : place.stop]
        if not examples:
            return None
        with clock("rollout"):
            rollouts = self._engine.generate(
                examples,
                group_size=rollout.group_size,
                temperature=rollout.temperature,
                max_tokens=rollout.max_completion_tokens,
                seed=[self._config.seed, step, attempt],
                first_row=place.start * rollout.group_size,
            )
        with clock("reward"):
            truths = [example.answer for example in examples for _ in range(rollout.group_size)]
            return Sampled(examples, rollouts, self._scorer.score_all(rollouts.texts, truths))

    def _rewards(self, sampled: Sampled) -> torch.Tensor:
        """`[P, G]` float64: what the verifiers gave, less an overlong penalty."""
        rewards = torch.tensor(
            [score.reward for score in sampled.scores], dtype=torch.float64, device=self._policy.device
        )
        if isinstance(self._algorithm, DAPO) and self._algorithm.overlong_buffer is not None:
            lengths, limit = sampled.rollouts.mask.sum(-1), self._config.rollout.max_completion_tokens
            rewards = rewards + overlong_penalty(lengths, limit, self._algorithm.overlong_buffer)
        return rewards.view(len(sampled.examples), -1)

    def _batch(self, step: int, first_prompt: int, sampled: Sampled, clock: _Clock) -> StepBatch:
        examples, rewards, algorithm = sampled.examples, self._rewards(sampled), self._algorithm
        rollouts = sampled.rollouts
        sampler_logprobs = importance = None
        if self._config.rollout.engine == "vllm":
            sampler_logprobs = rollouts.logprobs
            with clock("rescore"):
                rollouts = rescored(self._policy, examples, rollouts, self._config)
            importance = importance_weights(rollouts.logprobs, sampler_logprobs, self._config.rollout.importance_cap)
        with clock("expert"):
            experts = find_experts(self._policy, examples, self._config)
            if isinstance(algorithm, LearnsFromExperts):
                chosen = choose_experts(
                    algorithm, examples, seed=self._config.seed, step=step, first_prompt=first_prompt
                )
                experts = joined_experts(
                    experts, chosen, examples, rewards, self._scorer, normalise_by_std=algorithm.normalise_by_std
                )
        return StepBatch(
            examples=examples,
            rollouts=rollouts,
            scores=sampled.scores,
            rewards=rewards,
            passed=sampled.passed,
            advantages=group_advantages(rewards, normalise_by_std=algorithm.normalise_by_std),
            experts=experts,
            sampler_logprobs=sampler_logprobs,
            importance=importance,
        )


class SupervisedLearner:
    """Fine-tune on the examples' experts."""

    def __init__(self, config: TrainConfig, policy: Policy, gradient: GradientStep, ranks: Ranks) -> None:
        assert isinstance(config.algorithm, SFT)
        self._config, self._algorithm = config, config.algorithm
        self._policy, self._gradient, self._ranks = policy, gradient, ranks

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        clock = _Clock()
        place = self._ranks.share(len(examples))
        with clock("update"):
            metrics, tokens = self._update(examples[place.start : place.stop])
        return StepResult({**metrics, **clock.metrics(tokens)})

    def _update(self, examples: Sequence[Example]) -> tuple[dict[str, float], float]:
        """Metrics, and how many tokens, of all processes."""
        policy, config = self._policy, self._config
        policy.model.train()
        tokens, mask = policy.tokenize_experts(examples, config.rollout.max_completion_tokens)
        count, prompts = self._ranks.total([int(mask.sum()), len(examples)])
        self._gradient.clear()
        loss_sum = 0.0
        owners = list(range(len(examples)))
        parts = micro_batches(policy, examples, owners, mask.sum(-1).tolist(), config)
        with in_step(policy, self._ranks, len(parts)):
            for part in parts:
                logprobs = policy.logprobs(examples, part.tolist(), tokens[part], mask[part], temperature=1.0)
                loss = self._algorithm.loss(logprobs, mask[part], count=int(count))
                loss.backward(loss.detach() * 0 + 1)  # not finite: see Updater
                loss_sum += loss.item()
        norm, applied = self._gradient.apply()
        (total,) = self._ranks.total([loss_sum])
        metrics = {
            "loss/total": total,
            "loss/grad_norm": norm,
            "loss/skipped_updates": float(not applied),
            "expert/nll": total,
            "length/mean": count / prompts,
        }
        return metrics, count
