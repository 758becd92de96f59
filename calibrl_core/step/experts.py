"""The experts of a step: their tokens, their log-probabilities under the policy, and which of them the update uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example, completed
from calibrl_core.diagnostics.base import Experts
from calibrl_core.models.policy import Policy
from calibrl_core.step.advantages import expert_advantages
from calibrl_core.step.token_logprobs import logprobs_in_parts
from calibrl_core.verifiers.scorer import Scorer

_MIX = 2  # in the seed, beside the run's seed and the step: separates these random numbers from others


@torch.no_grad()
def find_experts(policy: Policy, examples: Sequence[Example], config: TrainConfig) -> Experts:
    """Return the experts of `examples` under the current policy, before the step's first update."""
    with_expert = [index for index, example in enumerate(examples) if example.expert]
    if not with_expert:
        return no_experts(examples, policy.device)
    limit = config.rollout.max_completion_tokens
    tokens, mask = policy.tokenize_experts([examples[index] for index in with_expert], limit)
    logprobs, entropies = logprobs_in_parts(
        policy, examples, with_expert, tokens, mask, config, config.rollout.temperature
    )
    prompts = torch.tensor(with_expert, device=policy.device)

    def by_prompt(rows: Tensor) -> Tensor:
        return rows.new_zeros((len(examples), rows.shape[1])).index_copy(0, prompts, rows)  # [P, E]

    return Experts(by_prompt(tokens), by_prompt(mask), by_prompt(logprobs), by_prompt(entropies))


def no_experts(examples: Sequence[Example], device: torch.device) -> Experts:
    """Return experts `[P, 0]` for examples of which none has an expert, or whose experts are not measured."""
    nothing = torch.zeros((len(examples), 0), device=device)
    return Experts(nothing.long(), nothing.bool(), nothing, nothing)


def choose_experts(
    algorithm: PolicyGradientSettings, examples: Sequence[Example], *, seed: int, step: int, first_prompt: int
) -> list[int]:
    """Return the indices of the examples whose expert joins the update of `step`, as the algorithm chooses.

    `first_prompt`: the index of this process's first prompt among those of all processes. A prompt's random number
    depends on its index only, so that any number of processes makes the same choice.
    """
    chances = np.random.default_rng([seed, _MIX, step]).random(first_prompt + len(examples))[first_prompt:]  # [P]
    return algorithm.choose_experts(examples, chances)


def with_chosen_experts(
    experts: Experts,
    indices: Sequence[int],
    examples: Sequence[Example],
    rewards: Tensor,
    scorer: Scorer,
    *,
    normalise_by_std: bool,
) -> Experts:
    """Return `experts` with those `indices` (indices) in the update, scored and compared with their groups. An expert
    without all verdicts stays out.

    rewards `[P, G]` float64, of the rollouts.
    """
    chosen = [examples[index] for index in indices]
    scores = scorer.grade(completed(chosen, [example.expert or "" for example in chosen]))
    joins = torch.zeros(len(examples), dtype=torch.bool, device=rewards.device)  # [P]
    expert_rewards = torch.zeros(len(examples), dtype=torch.float64, device=rewards.device)  # [P]
    for index, score in zip(indices, scores, strict=True):
        joins[index], expert_rewards[index] = score.failure is None, score.reward
    advantages = expert_advantages(expert_rewards, rewards, normalise_by_std=normalise_by_std)
    return replace(experts, joins=joins, advantages=advantages.masked_fill(~joins, 0.0))
