"""Whole steps against a plain float64 loop: a row at a time, full logits, no packing, no chunks, no row left out, AdamW
by hand. The two share the model's weights and the prompts' encoding, and nothing else."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.step.advantages import expert_advantages, group_advantages
from calibrl_core.step.experts import find_experts
from calibrl_core.step.optimizer import GradientStep, make_optimizer
from calibrl_core.step.update import Updater
from calibrl_core.verifiers.scorer import Score

PROMPTS, GROUP, WIDTH, STEPS = 5, 3, 9, 2
JOINING, EXPERT_REWARD = (0, 2), 1.1  # prompts whose expert is in the update, where the algorithm has that
BETAS, EPS = (0.9, 0.999), 1e-8

CASES = {
    "calibrl": {"algorithm": {"type": "calibrl", "mini_batches": 2}, "micro_batch_rows": 4},
    "sequence gap, divided by std": {
        "algorithm": {"type": "calibrl", "mini_batches": 2, "expert_gap": "sequence_mean", "normalise_by_std": True},
        "micro_batch_rows": 5,
    },
    "the published script's arithmetic": {
        "algorithm": {
            "type": "calibrl",
            "mini_batch_rows": 6,
            "micro_batch_mean": True,
            "expert_tail": "zero",
            "rareness_weighting": False,
        },
        "micro_batch_rows": 3,
    },
    "sequence means": {
        "algorithm": {"type": "calibrl", "mini_batches": 3, "aggregation": "seq-mean-token-mean"},
        "micro_batch_rows": 2,
    },
    "expert rows, each a micro-batch of its own": {
        "algorithm": {"type": "luffy", "mini_batches": 2, "normalise_by_std": True},
        "micro_batch_rows": 1,
    },
    "kl and entropy beside expert rows": {
        "algorithm": {"type": "luffy", "mini_batches": 2, "kl_coef": 0.3, "entropy_coef": 0.2},
        "micro_batch_rows": 4,
    },
    "kl and entropy": {
        "algorithm": {"type": "grpo", "mini_batches": 2, "kl_coef": 0.3, "entropy_coef": 0.2},
        "micro_batch_rows": 4,
    },
}


def make_config(case: Any) -> Any:
    return TrainConfig.model_validate(
        {
            "model": {"builtin": "tiny-vlm"},
            "data": {"builtin": "digits"},
            "steps": STEPS,
            "prompts_per_step": PROMPTS,
            "rollout": {"group_size": GROUP, "temperature": 0.9, "max_completion_tokens": 12},
            "optimizer": {"lr": 1e-3, "max_grad_norm": 0.05},
            **CASES[case],
        }
    )


@pytest.fixture(scope="module")
def prompts(examples: list[Example]) -> Any:
    """Five prompts: one without an expert, one with an expert of a single word."""
    chosen = list(examples[:PROMPTS])
    chosen[1] = dataclasses.replace(chosen[1], expert=None)
    chosen[2] = dataclasses.replace(chosen[2], expert="9")
    return chosen


def made_up_batch(policy: Policy, prompts: Any, config: Any, step: int) -> Any:
    """Rollouts of every length, one group with equal rewards, and old log-probabilities that clip on both sides."""
    generator = torch.Generator().manual_seed(step)
    rows = PROMPTS * GROUP
    lengths = torch.randint(1, WIDTH + 1, (rows,), generator=generator)
    mask = torch.arange(WIDTH) < lengths[:, None]
    allowed = (~policy.banned).nonzero().squeeze(-1)
    tokens = allowed[torch.randint(len(allowed), (rows, WIDTH), generator=generator)]
    passed = torch.rand((PROMPTS, GROUP), generator=generator) < 0.5
    passed[3] = True
    rewards = passed.double() + 0.1 * (torch.rand((PROMPTS, GROUP), generator=generator) < 0.5)
    rewards[3] = 1.1
    owners = [row // GROUP for row in range(rows)]
    with torch.no_grad():
        now = policy.logprobs(prompts, owners, tokens, mask, config.rollout.temperature)
    old = (now + 0.3 * torch.randn(now.shape, generator=generator, dtype=now.dtype)) * mask
    rollouts = Rollouts(
        tokens, mask, old, old, torch.zeros_like(old), torch.zeros(rows, dtype=torch.bool), [""] * rows, GROUP
    )
    experts = find_experts(policy, prompts, config)
    if config.algorithm.learns_from_experts:
        own = torch.full((PROMPTS,), EXPERT_REWARD, dtype=torch.float64)
        advantages = expert_advantages(own, rewards, normalise_by_std=config.algorithm.normalise_by_std)
        joins = torch.tensor([prompt in JOINING for prompt in range(PROMPTS)])
        experts = dataclasses.replace(experts, joins=joins, advantages=advantages.masked_fill(~joins, 0.0))
    return StepBatch(
        examples=prompts,
        rollouts=rollouts,
        scores=[Score({}, float(one), bool(one), bool(one)) for one in passed.flatten()],
        rewards=rewards,
        passed=passed,
        advantages=group_advantages(rewards, normalise_by_std=config.algorithm.normalise_by_std),
        experts=experts,
    )


class PlainLoop:
    """Implements the same steps directly from the formulas."""

    def __init__(self, policy: Policy, config: Any) -> None:
        self.policy, self.config, self.algorithm = policy, config, config.algorithm
        self.model = copy.deepcopy(policy.model)
        self.start = copy.deepcopy(policy.model)
        self.parameters = list(self.model.parameters())
        self.moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in self.parameters]
        self.updates = 0

    def scores(self, model: Any, example: Example, tokens: Tensor) -> Any:
        """Log-probabilities and entropies `[n]` of `tokens` `[n]` after the example's prompt."""
        prompt = self.policy.encode([example])
        ids = torch.cat([prompt.input_ids, tokens[None]], dim=1)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **prompt.images).logits[0]
        logits = logits[prompt.input_ids.shape[1] - 1 : -1] / self.config.rollout.temperature
        logprobs = logits.masked_fill(self.policy.banned, -math.inf).log_softmax(-1)
        entropies = -(logprobs.exp() * logprobs.masked_fill(self.policy.banned, 0.0)).sum(-1)
        return logprobs.gather(-1, tokens[:, None])[:, 0], entropies

    def experts(self, prompts: Any) -> Any:
        found: list[Tensor | None] = []
        for example in prompts:
            if example.expert is None:
                found.append(None)
                continue
            with torch.no_grad():
                found.append(self.scores(self.model, example, self.expert_tokens(example))[0])
        return found

    def step(self, batch: Any) -> None:
        experts = self.experts(batch.examples)
        advantages: list[float] = []
        self.expert_advantages = []
        for group in batch.rewards.tolist():
            mean = sum(group) / GROUP
            spread = math.sqrt(sum((one - mean) ** 2 for one in group) / (GROUP - 1)) + 1e-6
            equal = max(group) == min(group)
            scale = spread if self.algorithm.normalise_by_std else 1.0
            advantages += [0.0 if equal else (one - mean) / scale for one in group]
            self.expert_advantages.append((EXPERT_REWARD - mean) / (1.0 if equal else scale))
        for places in self.mini_batches():
            loss = self.loss(batch, places, advantages, experts)
            self.update(torch.autograd.grad(loss, self.parameters, allow_unused=True))

    def mini_batches(self) -> Any:
        groups = [[*range(p * GROUP, (p + 1) * GROUP)] for p in range(PROMPTS)]
        if self.algorithm.mini_batch_rows is None:
            count = self.algorithm.mini_batches
            if self.algorithm.learns_from_experts:
                groups = [[*group, ~p] if p in JOINING else group for p, group in enumerate(groups)]
            return [[row for p in range(PROMPTS) if p % count == m for row in groups[p]] for m in range(count)]
        places = [place for group in groups for place in [*group, None]]
        size = self.algorithm.mini_batch_rows
        return [places[start : start + size] for start in range(0, len(places), size)]

    def loss(self, batch: Any, places: Any, advantages: Any, experts: Any) -> Any:
        if not self.algorithm.micro_batch_mean:
            return self.mean([row for row in places if row is not None], batch, advantages, experts)
        size = self.config.micro_batch_rows
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        kept = [[row for row in part if row is not None] for part in parts]
        means = [self.mean(part, batch, advantages, experts) for part in kept if part]
        return sum(means) / (self.algorithm.mini_batch_rows // size)

    def mean(self, rows: Any, batch: Any, advantages: Any, experts: Any) -> Any:
        losses = [
            self.row(row, batch, advantages[row], experts[row // GROUP]) if row >= 0 else self.expert_row(~row, batch)
            for row in rows
        ]
        if self.algorithm.aggregation == "seq-mean-token-mean":
            return sum(sum(row) / len(row) for row in losses) / len(losses)
        tokens = [token for row in losses for token in row]
        return sum(tokens) / len(tokens)

    def row(self, row: Any, batch: Any, advantage: Any, expert: Any) -> Any:
        """The loss of each token of a rollout, a list of scalars."""
        example = batch.examples[row // GROUP]
        length = int(batch.rollouts.mask[row].sum())
        tokens = batch.rollouts.tokens[row, :length]
        logprobs, entropies = self.scores(self.model, example, tokens)
        reference = self.reference(example, tokens)
        passed = bool(batch.passed.flatten()[row])
        losses = []
        for t in range(length):
            loss = self.policy_loss(logprobs[t], batch.rollouts.logprobs[row, t], advantage)
            if self.algorithm.type == "calibrl" and expert is not None:
                loss = loss + self.algorithm.guidance_coef * self.guidance(logprobs, t, advantage, passed, expert)
            if reference is not None:
                difference = reference[t] - logprobs[t]
                loss = loss + self.algorithm.kl_coef * (difference.exp() - difference - 1)
            losses.append(loss - self.algorithm.entropy_coef * entropies[t])
        return losses

    def reference(self, example: Example, tokens: Tensor) -> Any:
        """Return the initial policy's log-probability per token if the loss needs it."""
        if self.algorithm.kl_coef == 0:
            return None
        with torch.no_grad():
            return self.scores(self.start, example, tokens)[0]

    def expert_row(self, prompt: Any, batch: Any) -> Any:
        tokens = self.expert_tokens(batch.examples[prompt])
        probabilities = self.scores(self.model, batch.examples[prompt], tokens)[0].exp()
        return [-self.expert_advantages[prompt] * one / (one + 0.1) for one in probabilities]

    def expert_tokens(self, example: Example) -> Any:
        words = self.policy.tokenizer(example.expert, add_special_tokens=False).input_ids
        return torch.tensor([*words, self.policy.tokenizer.eos_token_id][:12])

    def policy_loss(self, logprob: Any, old: Any, advantage: Any) -> Any:
        ratio = (logprob - old).exp()
        low, high = 1 - self.algorithm.clip_low, 1 + self.algorithm.clip_high
        clipped = min(max(ratio.item(), low), high)
        loss = -advantage * ratio
        if -advantage * clipped > loss.item():
            loss = logprob.new_tensor(-advantage * clipped)
        if advantage < 0 and loss.item() > -self.algorithm.dual_clip * advantage:
            loss = logprob.new_tensor(-self.algorithm.dual_clip * advantage)
        return loss

    def guidance(self, logprobs: Any, t: Any, advantage: Any, passed: Any, expert: Any) -> Any:
        if self.algorithm.expert_gap == "sequence_mean":
            gap = logprobs.mean() - expert.mean()
        elif t < len(expert):
            gap = logprobs[t] - expert[t]
        elif self.algorithm.expert_tail == "zero":
            gap = logprobs[t]
        else:
            return 0.0
        push = -gap if passed else gap
        damped = push if push.item() > 0 else self.algorithm.negative_slope * push
        return (abs(advantage) if self.algorithm.rareness_weighting else 1.0) * damped

    def update(self, gradients: Any) -> None:
        settings = self.config.optimizer
        self.updates += 1
        norm = math.sqrt(sum((one**2).sum().item() for one in gradients if one is not None))
        scale = min(1.0, settings.max_grad_norm / (norm + 1e-6))
        for parameter, gradient, (first, second) in zip(self.parameters, gradients, self.moments, strict=True):
            if gradient is None:
                continue
            gradient = gradient * scale
            first.mul_(BETAS[0]).add_((1 - BETAS[0]) * gradient)
            second.mul_(BETAS[1]).add_((1 - BETAS[1]) * gradient**2)
            with torch.no_grad():
                parameter.mul_(1 - settings.lr * settings.weight_decay)
                corrected = second / (1 - BETAS[1] ** self.updates)
                parameter.sub_(settings.lr / (1 - BETAS[0] ** self.updates) * first / (corrected.sqrt() + EPS))


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalise in float64: transformers' Llama normalises in float32 for any input."""

    def forward(self: Any, hidden: Any) -> Any:
        return self.weight * hidden * (hidden.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def in_float64(policy: Policy) -> Any:
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    twin.model.double()
    return twin


@pytest.mark.parametrize("case", ["calibrl", *(pytest.param(one, marks=pytest.mark.slow) for one in list(CASES)[1:])])
def test_steps_end_with_the_weights_of_a_plain_loop(policy: Policy, prompts: Any, case: Any) -> None:
    config = make_config(case)
    ours = in_float64(policy)
    plain = PlainLoop(ours, config)
    reference = in_float64(policy) if config.algorithm.kl_coef else None
    updater = Updater(
        ours, GradientStep(ours, make_optimizer(ours, config.optimizer), config.optimizer), config, reference
    )
    before = [one.detach().clone() for one in ours.model.parameters()]
    for step in range(STEPS):
        batch = made_up_batch(ours, prompts, config, step)
        plain.step(batch)
        updater.update(batch, step)
    moved = 0.0
    for parameter, start, expected in zip(ours.model.parameters(), before, plain.parameters, strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-9)
        moved = max(moved, (parameter - start).abs().max().item())
    assert moved > 1e-3
