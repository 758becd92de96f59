"""A step's experts: what the policy thinks of them, and which of them LUFFY and RL-PLUS learn from."""

import dataclasses
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import LUFFY
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import Experts
from calibrl_core.models.policy import Policy
from calibrl_core.step.experts import choose_experts, find_experts, with_chosen_experts
from calibrl_core.verifiers.scorer import Scorer


def config(**changes: Any) -> Any:
    required = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    return TrainConfig.model_validate({**required, "rollout": {"max_completion_tokens": 20}, **changes})


def test_an_expert_is_tokens_one_stop_and_the_policys_own_logprobs(policy: Policy, examples: list[Example]) -> None:
    prompts = [dataclasses.replace(examples[0], expert=None), examples[1], dataclasses.replace(examples[2], expert="9")]
    found = find_experts(policy, prompts, config())
    assert found.mask.sum(-1).tolist()[0] == 0
    assert found.mask.sum(-1).tolist()[2] == 2
    assert found.tokens[2, 1] == policy.tokenizer.eos_token_id
    with torch.no_grad():
        alone = policy.logprobs(prompts, [1], found.tokens[1:2], found.mask[1:2], 1.0)
    torch.testing.assert_close(found.logprobs[1:2], alone, rtol=0, atol=1e-5)
    assert found.nll == pytest.approx(-found.logprobs.sum().item() / int(found.mask.sum()), rel=1e-5)
    assert found.entropies[found.mask].min() > 0
    cut = find_experts(policy, prompts, config(rollout={"max_completion_tokens": 3}))
    assert cut.mask.sum(-1).tolist() == [0, 3, 2]
    assert policy.tokenizer.eos_token_id not in cut.tokens[1]


def test_micro_batches_do_not_change_the_experts_log_probs(policy: Policy, examples: list[Example]) -> None:
    whole, parts = (find_experts(policy, examples, config(micro_batch_rows=rows)) for rows in (None, 1))
    torch.testing.assert_close(whole.logprobs, parts.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.entropies, parts.entropies, rtol=0, atol=1e-5)


def choose(algorithm: Any, prompts: Any, step: int = 0, first_prompt: int = 0) -> Any:
    return choose_experts(algorithm, prompts, seed=0, step=step, first_prompt=first_prompt)


def test_an_expert_joins_where_its_pass_ratio_lies_in_the_range(examples: list[Example]) -> None:
    ratios = [0.0, 0.2, 0.5, 0.9, None]
    prompts = [dataclasses.replace(one, pass_ratio=ratio) for one, ratio in zip(examples, ratios, strict=False)]
    prompts.append(dataclasses.replace(examples[5], expert=None))
    assert choose(LUFFY(), prompts) == [0, 1, 2, 3, 4]
    assert choose(LUFFY(pass_ratio_low=0.2, pass_ratio_high=0.5), prompts) == [1, 2, 4]
    assert choose(LUFFY(mix_ratio=0.0), prompts) == []


def test_the_mix_is_by_chance_and_does_not_depend_on_who_else_is_there(examples: list[Example]) -> None:
    many = list(examples) * 50
    chosen = choose(LUFFY(mix_ratio=0.5), many)
    assert 0.35 < len(chosen) / len(many) < 0.65
    assert chosen != choose(LUFFY(mix_ratio=0.5), many, step=1)
    second_half = choose(LUFFY(mix_ratio=0.5), many[150:], first_prompt=150)
    assert second_half == [index - 150 for index in chosen if index >= 150]


def test_an_expert_is_compared_with_its_groups_rollouts(examples: list[Example]) -> None:
    rewards = torch.tensor([[1.1, 0.1], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    nothing = torch.zeros((3, 1))
    experts = Experts(nothing.long(), nothing.bool(), nothing, nothing)
    with Scorer(config().rewards) as scorer:
        found = with_chosen_experts(experts, [0, 1], examples[:3], rewards, scorer, normalise_by_std=False)
        divided = with_chosen_experts(experts, [0, 1], examples[:3], rewards, scorer, normalise_by_std=True)
    assert found.joins is not None and found.advantages is not None and divided.advantages is not None
    assert found.joins.tolist() == [True, True, False]
    assert found.advantages.tolist() == pytest.approx([1.1 - 0.6, 1.1, 0.0])
    spread = 0.5 * 2**0.5  # unbiased, of 1.1 and 0.1
    assert divided.advantages.tolist() == pytest.approx([0.5 / spread, 1.1, 0.0], rel=1e-5)
