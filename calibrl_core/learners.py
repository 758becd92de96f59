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
from calibrl_core.rewards import score
from calibrl_core.rollout.base import RolloutEngine, Rollouts
from calibrl_core.update import Updater, UpdateSettings

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


class ReinforcementLearner:
    """Roll out, score, compare with the group and the expert, update."""

    def __init__(
        self, config: TrainConfig, policy: Policy, engine: RolloutEngine, optimizer: torch.optim.Optimizer
    ) -> None:
        assert not isinstance(config.algorithm, SFT)
        self._config = config
        self._policy = policy
        self._engine = engine
        self._highest_reward = sum(reward.weight for reward in config.rewards)
        self._updater = Updater(policy, optimizer, config.algorithm, UpdateSettings.of(config))

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
        histograms = {"rareness": rareness_histogram(batch, self._highest_reward)}
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
        rewards = torch.tensor([one.reward for one in scores], dtype=torch.float64).view(-1, size)
        expert_logprobs, expert_mask, expert_nll = self._experts(examples, rollouts)
        batch = StepBatch(
            rollouts=rollouts,
            scores=scores,
            rewards=rewards,
            passed=torch.tensor([one.passed for one in scores]).view(-1, size),
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
        """The policy's own log-probabilities of the experts before the step's first update, laid beside the rollouts
        (`[B, T]` and mask), and their mean negative log-likelihood. Prompts without an expert have an empty mask."""
        count, length = rollouts.mask.shape
        beside = torch.zeros((count, length), device=rollouts.mask.device)
        beside_mask = torch.zeros_like(rollouts.mask)
        having = [index for index, example in enumerate(examples) if example.expert]
        if not having:
            return beside, beside_mask, None
        self._policy.model.eval()
        rollout = self._config.rollout
        tokens, mask = self._policy.tokenize_experts([examples[i] for i in having], rollout.max_completion_tokens)
        logprobs = self._policy.logprobs(examples, having, tokens, mask, rollout.temperature)
        shared = min(length, logprobs.shape[1])
        rows = torch.tensor(having)[:, None] * rollouts.group_size + torch.arange(rollouts.group_size)
        beside[rows, :shared] = logprobs[:, None, :shared]
        beside_mask[rows, :shared] = mask[:, None, :shared]
        return beside, beside_mask, -logprobs.sum().item() / int(mask.sum())


class SupervisedLearner:
    """Fine-tune on the examples' experts."""

    def __init__(self, config: TrainConfig, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(config.algorithm, SFT)
        self._config = config
        self._algorithm = config.algorithm
        self._policy = policy
        self._optimizer = optimizer

    def step(self, step: int, examples: Sequence[Example]) -> StepResult:
        began = time.perf_counter()
        policy, config = self._policy, self._config
        policy.model.train()
        tokens, mask = policy.tokenize_experts(examples, config.rollout.max_completion_tokens)
        size = config.micro_batch_rows or len(examples)
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            owners = range(len(examples))[part]
            logprobs = policy.logprobs(examples, owners, tokens[part], mask[part], temperature=1.0)
            loss = self._algorithm.loss(logprobs, mask[part], count=int(mask.sum()))
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), config.optimizer.max_grad_norm).item()
        self._optimizer.step()
        seconds = time.perf_counter() - began
        metrics = {
            "loss/total": total,
            "loss/grad_norm": norm,
            "expert/nll": total,
            "length/mean": int(mask.sum()) / len(examples),
            "perf/update_seconds": seconds,
            "perf/tokens_per_second": int(mask.sum()) / seconds,
        }
        return StepResult(metrics)
