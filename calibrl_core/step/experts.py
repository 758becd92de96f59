"""A step's experts: their tokens, how likely the policy finds them, and which of them the update learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from calibrl_core.algorithms.luffy import LearnsFromExperts
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import Experts
from calibrl_core.models.policy import Policy
from calibrl_core.step.advantages import expert_advantages
from calibrl_core.step.token_logprobs import score_in_parts
from calibrl_core.verifiers.scorer import Scorer

_MIX = 2  # beside seed and step: which experts join the update


@torch.no_grad()
def find_experts(policy: Policy, examples: Sequence[Example], config: TrainConfig) -> Experts:
    """The experts of `examples` under the policy as it is now, before the step's first update."""
    having = [index for index, example in enumerate(examples) if example.expert]
    if not having:
        nothing = torch.zeros((len(examples), 0), device=policy.device)
        return Experts(nothing.long(), nothing.bool(), nothing, nothing)
    policy.model.eval()
    tokens, mask = policy.tokenize_experts([examples[i] for i in having], config.rollout.max_completion_tokens)
    logprobs, entropies = score_in_parts(policy, examples, having, tokens, mask, config)
    place = torch.tensor(having, device=policy.device)

    def by_prompt(rows: Tensor) -> Tensor:
        return rows.new_zeros((len(examples), rows.shape[1])).index_copy(0, place, rows)

    return Experts(by_prompt(tokens), by_prompt(mask), by_prompt(logprobs), by_prompt(entropies))


def choose_experts(
    algorithm: LearnsFromExperts, examples: Sequence[Example], *, seed: int, step: int, first_prompt: int
) -> list[int]:
    """The prompts whose expert joins the update of `step` (LUFFY, RL-PLUS): those in the range of pass ratios, of which
    `mix_ratio` by chance. A row that tells no pass ratio is in the range."""
    low, high = algorithm.pass_ratio_low, algorithm.pass_ratio_high
    chances = np.random.default_rng([seed, _MIX, step]).random(first_prompt + len(examples))[first_prompt:]
    return [
        index
        for index, example in enumerate(examples)
        if example.expert
        and (example.pass_ratio is None or low <= example.pass_ratio <= high)
        and chances[index] < algorithm.mix_ratio
    ]


def joined_experts(
    experts: Experts,
    chosen: Sequence[int],
    examples: Sequence[Example],
    rewards: Tensor,
    scorer: Scorer,
    *,
    normalise_by_std: bool,
) -> Experts:
    """The experts with those `chosen` in the update: their own rewards compared with their groups'. rewards `[P, G]`
    float64."""
    scores = scorer.score_all([examples[i].expert or "" for i in chosen], [examples[i].answer for i in chosen])
    joins = torch.zeros(len(examples), dtype=torch.bool, device=rewards.device)
    own = torch.zeros(len(examples), dtype=torch.float64, device=rewards.device)
    for index, score in zip(chosen, scores, strict=True):
        joins[index], own[index] = True, score.reward
    advantages = expert_advantages(own, rewards, normalise_by_std=normalise_by_std)
    return replace(experts, joins=joins, advantages=advantages.masked_fill(~joins, 0.0))
