"""One step of each kind of learning: reinforcement (any policy-gradient algorithm) and supervised."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from calibrl_core.advantages import group_advantages
from calibrl_core.algorithms import SFT
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics import diagnose
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.expert_mismatch import gap_histogram
from calibrl_core.diagnostics.rareness import rareness_histogram
from calibrl_core.models.policy import Policy
from calibrl_core.optimizer import GradientStep
from calibrl_core.rewards import score
from calibrl_core.rollout.base import RolloutEngine, Rollouts
from calibrl_core.update import Updater

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


def highest_rareness(config: TrainConfig) -> float:
    """The largest |A| that a group can have: the last edge of its histogram."""
    if isinstance(config.algorithm, SFT) or not config.algorithm.normalise_by_std:
        return sum(reward.weight for reward in config.rewards)
    group = config.rollout.group_size
    return float((group - 1) / group**0.5)  # one against all others, by the unbiased standard deviation


class ReinforcementLearner:
    """Roll out, score, compare with the group and the expert, update."""

    def __init__(
        self, config: TrainConfig, policy: Policy, engine: RolloutEngine, optimizer: torch.optim.Optimizer
    ) -> None:
        assert not isinstance(config.algorithm, SFT)
        self._config = config
        self._policy = policy
        self._engine = engine
        self._updater = Updater(policy, GradientStep(policy, optimizer, config.optimizer), config)
        self._highest_rareness = highest_rareness(config)

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        config, began = self._config, time.perf_counter()
        rollouts = self._engine.generate(
            examples,
            group_size=config.rollout.group_size,
            temperature=config.rollout.temperature,
            max_tokens=config.rollout.max_completion_tokens,
            seed=[config.seed, step],
        )
        rolled_out = time.perf_counter()
        batch, reward_seconds = self._score(examples, rollouts)
        scored = time.perf_counter()
        losses = self._updater.update(examples, batch, step)
        ended = time.perf_counter()
        metrics = {
            **diagnose(batch),
            **losses,
            "perf/rollout_seconds": rolled_out - began,
            "perf/reward_seconds": reward_seconds,
            "perf/update_seconds": ended - scored,
            "perf/tokens_per_second": int(rollouts.mask.sum()) / (ended - began),
        }
        histograms = {"rareness": rareness_histogram(batch, self._highest_rareness)}
        if batch.expert_nll is not None:
            histograms["expert/gap"] = gap_histogram(batch)
        return StepResult(metrics, histograms, batch)

    def _score(self, examples: Sequence[Example], rollouts: Rollouts) -> tuple[StepBatch, float]:
        began = time.perf_counter()
        size = rollouts.group_size
        scores = [
            score(text, examples[row // size].answer, self._config.rewards) for row, text in enumerate(rollouts.texts)
        ]
        reward_seconds = time.perf_counter() - began
        rewards = torch.tensor([one.reward for one in scores], dtype=torch.float64, device=self._policy.device).view(
            -1, size
        )
        expert_logprobs, expert_mask, expert_nll = self._experts(examples, rollouts)
        batch = StepBatch(
            rollouts=rollouts,
            scores=scores,
            rewards=rewards,
            passed=torch.tensor([one.passed for one in scores], device=self._policy.device).view(-1, size),
            advantages=group_advantages(rewards, normalise_by_std=self._updater.algorithm.normalise_by_std),
            expert_logprobs=expert_logprobs,
            expert_mask=expert_mask,
            expert_nll=expert_nll,
        )
        return batch, reward_seconds

    @torch.no_grad()
    def _experts(
        self, examples: Sequence[Example], rollouts: Rollouts
    ) -> tuple[torch.Tensor, torch.Tensor, float | None]:
        """The policy's own log-probabilities of the experts before the step's first update, a row beside each rollout
        (`[B, E]` and mask, E: the longest expert), and their mean negative log-likelihood. A prompt without an expert
        has an empty mask."""
        having = [index for index, example in enumerate(examples) if example.expert]
        if not having:
            nothing = torch.zeros((len(rollouts.mask), 0), device=rollouts.mask.device)
            return nothing, nothing.bool(), None
        self._policy.model.eval()
        rollout = self._config.rollout
        tokens, mask = self._policy.tokenize_experts([examples[i] for i in having], rollout.max_completion_tokens)
        logprobs = self._policy.logprobs(examples, having, tokens, mask, rollout.temperature)
        beside = torch.zeros((len(rollouts.mask), logprobs.shape[1]), device=logprobs.device)
        beside_mask = torch.zeros(beside.shape, dtype=torch.bool, device=logprobs.device)
        rows = torch.tensor(having)[:, None] * rollouts.group_size + torch.arange(rollouts.group_size)
        beside[rows] = logprobs[:, None]
        beside_mask[rows] = mask[:, None]
        return beside, beside_mask, -logprobs.sum().item() / int(mask.sum())


class SupervisedLearner:
    """Fine-tune on the examples' experts."""

    def __init__(self, config: TrainConfig, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(config.algorithm, SFT)
        self._config = config
        self._algorithm = config.algorithm
        self._policy = policy
        self._gradient = GradientStep(policy, optimizer, config.optimizer)

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        began = time.perf_counter()
        policy, config = self._policy, self._config
        policy.model.train()
        tokens, mask = policy.tokenize_experts(examples, config.rollout.max_completion_tokens)
        size = config.micro_batch_rows or len(examples)
        self._gradient.clear()
        total = 0.0
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            owners = range(len(examples))[part]
            logprobs = policy.logprobs(examples, owners, tokens[part], mask[part], temperature=1.0)
            loss = self._algorithm.loss(logprobs, mask[part], count=int(mask.sum()))
            loss.backward()
            total += loss.item()
        norm, applied = self._gradient.apply()
        seconds = time.perf_counter() - began
        metrics = {
            "loss/total": total,
            "loss/grad_norm": norm,
            "loss/skipped_updates": float(not applied),
            "expert/nll": total,
            "length/mean": int(mask.sum()) / len(examples),
            "perf/update_seconds": seconds,
            "perf/tokens_per_second": int(mask.sum()) / seconds,
        }
        return StepResult(metrics)
