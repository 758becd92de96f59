"""Sampled accuracy on held-out data while training, and how the policy sees held-out experts."""

from __future__ import annotations

from collections.abc import Sequence

from calibrl_core.accuracy import ask, summarise
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.probe import Probe
from calibrl_core.models.policy import Policy
from calibrl_core.rewards import Scorer
from calibrl_core.rollout.base import RolloutEngine

_SEED = 1  # beside the run's seed: validation draws other numbers than training


class Validator:
    """Validates one policy, as it becomes, on the same prompts."""

    def __init__(
        self, config: TrainConfig, examples: Sequence[Example], policy: Policy, engine: RolloutEngine, scorer: Scorer
    ) -> None:
        assert config.validation is not None
        self._config, self._settings = config, config.validation
        self._examples, self._policy, self._engine, self._scorer = examples, policy, engine, scorer
        self._probe = Probe(examples, config)

    def due(self, step: int, *, last: bool) -> bool:
        """Whether `step` (from 1) is followed by a validation."""
        return last or step % self._settings.every_steps == 0

    def validate(self, step: int) -> dict[str, float]:
        """validation/ metrics with their intervals, and expert/probe_ ones where the data has experts."""
        rollout = self._config.rollout
        answers = ask(
            self._engine,
            self._examples,
            self._scorer,
            samples=self._settings.samples,
            temperature=rollout.temperature,
            max_tokens=rollout.max_completion_tokens,
            seed=[self._config.seed, _SEED, step],
        )
        summary = summarise(answers, self._config.seed)
        return {
            **{f"validation/{name}": value for name, value in summary.items()},
            **self._probe.measure(self._policy, answers.logprobs),
        }
