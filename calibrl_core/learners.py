"""One step of each kind of learning: reinforcement (any policy-gradient algorithm) and supervised."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from calibrl_core.advantages import group_advantages
from calibrl_core.algorithms import DAPO, SFT
from calibrl_core.algorithms.dapo import overlong_penalty
from calibrl_core.algorithms.luffy import LearnsFromExperts
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics import diagnose, histograms
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.experts import choose_experts, find_experts, joined_experts
from calibrl_core.models.policy import Policy
from calibrl_core.optimizer import GradientStep
from calibrl_core.order import DataOrder
from calibrl_core.ranks import Ranks
from calibrl_core.resample import Sampled, fill_with_mixed
from calibrl_core.rewards import Scorer
from calibrl_core.rollout.base import RolloutEngine
from calibrl_core.scoring import micro_batches
from calibrl_core.update import Updater

GRADIENT_STEPS = 20  # between two comparisons of the policy's and the guidance's gradients

Histogram = tuple[list[float], list[int]]  # edges, counts


@dataclass(frozen=True)
class StepResult:
    """What a step has to tell."""

    metrics: dict[str, float]
    histograms: dict[str, Histogram] = field(default_factory=dict)
    batch: StepBatch | None = None


class Learner(Protocol):
    """Takes one step on some examples."""

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        """Update the policy; `step` counts from 0."""


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    def metrics(self, tokens: int) -> dict[str, float]:
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
        first_prompt = self._ranks.share(self._config.prompts_per_step).start
        sampled = self._sample(step, 0, examples, clock)
        extra = {}
        if isinstance(self._algorithm, DAPO) and self._algorithm.dynamic_sampling:
            sampled, prompts = fill_with_mixed(
                sampled,
                lambda attempt, count: self._sample(step, attempt, self._order.more(step, attempt, count), clock),
                self._algorithm.max_resamples,
            )
            extra["exploration/sampled_prompts"] = float(prompts)
        batch = self._batch(step, first_prompt, sampled, clock)
        if step % GRADIENT_STEPS == 0:
            extra |= self._updater.compare_gradients(batch, step)  # not in the step's time: it is for people only
        with clock("update"):
            losses = self._updater.update(batch, step, first_prompt)
        tokens = int(batch.rollouts.mask.sum())
        metrics = {**diagnose(batch), **losses, **extra, **clock.metrics(tokens)}
        return StepResult(metrics, histograms(batch, self._config), batch)

    def _sample(self, step: int, attempt: int, examples: Sequence[Example], clock: _Clock) -> Sampled:
        rollout = self._config.rollout
        first_prompt = self._ranks.share(self._config.prompts_per_step).start
        with clock("rollout"):
            rollouts = self._engine.generate(
                examples,
                group_size=rollout.group_size,
                temperature=rollout.temperature,
                max_tokens=rollout.max_completion_tokens,
                seed=[self._config.seed, step, attempt],
                first_row=first_prompt * rollout.group_size,
            )
        with clock("reward"):
            truths = [example.answer for example in examples for _ in range(rollout.group_size)]
            return Sampled(examples, rollouts, self._scorer.score_all(rollouts.texts, truths))

    def _batch(self, step: int, first_prompt: int, sampled: Sampled, clock: _Clock) -> StepBatch:
        examples, rollouts, algorithm = sampled.examples, sampled.rollouts, self._algorithm
        rewards = torch.tensor(
            [score.reward for score in sampled.scores], dtype=torch.float64, device=self._policy.device
        )
        if isinstance(algorithm, DAPO) and algorithm.overlong_buffer is not None:
            lengths, limit = rollouts.mask.sum(-1), self._config.rollout.max_completion_tokens
            rewards = rewards + overlong_penalty(lengths, limit, algorithm.overlong_buffer)
        rewards = rewards.view(len(examples), -1)
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
        )


class SupervisedLearner:
    """Fine-tune on the examples' experts."""

    def __init__(self, config: TrainConfig, policy: Policy, gradient: GradientStep, ranks: Ranks) -> None:
        assert isinstance(config.algorithm, SFT)
        self._config, self._algorithm = config, config.algorithm
        self._policy, self._gradient, self._ranks = policy, gradient, ranks

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        clock = _Clock()
        with clock("update"):
            metrics, tokens = self._update(examples)
        return StepResult({**metrics, **clock.metrics(tokens)})

    def _update(self, examples: Sequence[Example]) -> tuple[dict[str, float], int]:
        policy, config = self._policy, self._config
        policy.model.train()
        tokens, mask = policy.tokenize_experts(examples, config.rollout.max_completion_tokens)
        count = int(mask.sum())
        (total_count,) = self._ranks.total([count])
        self._gradient.clear()
        loss_sum = 0.0
        owners = list(range(len(examples)))
        for part in micro_batches(policy, examples, owners, mask.sum(-1).tolist(), config):
            rows = part.tolist()
            logprobs = policy.logprobs(examples, rows, tokens[part], mask[part], temperature=1.0)
            loss = self._algorithm.loss(logprobs, mask[part], count=int(total_count))
            loss.backward(loss.detach() * 0 + 1)  # not finite: see Updater
            loss_sum += loss.item()
        norm, applied = self._gradient.apply()
        (total,) = self._ranks.total([loss_sum])
        (prompts,) = self._ranks.total([len(examples)])
        metrics = {
            "loss/total": total,
            "loss/grad_norm": norm,
            "loss/skipped_updates": float(not applied),
            "expert/nll": total,
            "length/mean": total_count / prompts,
        }
        return metrics, count
