"""Arms with CalibRL's trainer: GRPO, to compare with TRL, and CalibRL, to measure the cost of its guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from bench.cases import NO_STOP, ModelCase
from bench.lockstep import Gate
from bench.rewards import reward
from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.config import TrainConfig
from calibrl_core.data.order import DataOrder
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.learners import ReinforcementLearner, RolloutParts
from calibrl_core.step.optimizer import GradientStep, make_optimizer
from calibrl_core.step.prompt_source import PromptSource
from calibrl_core.step.update import Updater
from calibrl_core.verifiers.exact import ExactReward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import Score, Scorer

PHASES = ("image", "rollout", "reward", "expert", "update")


class HashedRewards(Scorer):
    """Replacement of the verifiers, like the plain function of the other arm."""

    equal = False

    def grade(self, inputs: Sequence[RewardInput]) -> list[Score]:
        """Return the reward of each completion. The truth of a prompt is its number: see `ModelCase.examples`."""
        values = [reward(seen.completion, int(seen.truth), equal=self.equal) for seen in inputs]
        return [Score(by_verifier={"hash": value}, reward=value, passed=value > 0.5, strict=False) for value in values]


def run(case: ModelCase, steps: int, seed: int, algorithm: Literal["grpo", "calibrl"], gate: Gate) -> None:
    """Train until the gate stops the loop; there are prompts for `steps` steps."""
    config = _config(case, steps, seed, algorithm)
    policy = case.load()
    policy.stop_ids = frozenset({NO_STOP})
    torch.set_num_threads(case.threads)
    examples = case.examples(case.prompts * steps)
    if algorithm == "grpo":  # the trainer would measure experts for its log; TRL's arm has no experts
        examples = [replace(example, expert=None) for example in examples]
    with HashedRewards(config.rewards) as scorer:
        learner = make_learner(config, policy, examples, scorer)
        for step in range(steps):
            orders = gate.next()
            if orders is None:
                return
            scorer.equal = orders.equal_rewards
            torch.manual_seed(step)
            # In order, as in TRL's arm, and never twice, because encoded prompts are cached.
            result = learner.step(step, examples[step * case.prompts : (step + 1) * case.prompts])
            assert result.batch is not None
            seconds = {phase: result.metrics.get(f"perf/{phase}_seconds", 0.0) for phase in PHASES}
            gate.done(int(result.batch.rollouts.mask.sum()), seconds)


def make_learner(
    config: TrainConfig, policy: Policy, examples: Sequence[Example], scorer: Scorer
) -> ReinforcementLearner:
    """Return the trainer's own learner in this process, with a new optimizer."""
    assert isinstance(config.algorithm, PolicyGradientSettings)
    gradient = GradientStep(policy, make_optimizer(policy, config.optimizer), config.optimizer)
    engine = SharedPrefillEngine(policy, config.rollout.batch_tokens)
    prompts = PromptSource(DataOrder(examples, config.seed, config.prompts_per_step), policy.encoder, Ranks())
    parts = RolloutParts(policy, engine, scorer, prompts, Ranks(), config.step_count(len(examples)))
    return ReinforcementLearner(config, config.algorithm, parts, Updater(policy, gradient, config))


def _config(case: ModelCase, steps: int, seed: int, algorithm: str) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": {"builtin": "tiny-vlm"},  # not read: the policy comes from the case
            "data": {"builtin": "digits"},  # not read
            "algorithm": {"type": algorithm, "mini_batches": 1},
            "rewards": [ExactReward()],
            "rollout": {"group_size": case.group_size, "max_completion_tokens": case.tokens},
            "optimizer": {"lr": 1e-6, "weight_decay": 0.01, "max_grad_norm": 1.0},
            "prompts_per_step": case.prompts,
            "steps": steps,
            "seed": seed,
        }
    )
