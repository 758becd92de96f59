"""Sampled accuracy on validation data during training, and log-probability of validation experts under the policy."""

from __future__ import annotations

from collections.abc import Sequence

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.evaluation.accuracy import Answers, concatenate, sample_answers, summarise
from calibrl_core.evaluation.expert_probe import ExpertProbe
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import RolloutEngine, SamplingRequest
from calibrl_core.verifiers.base import answer_form
from calibrl_core.verifiers.scorer import Scorer, check_needed, labels_with

_SEED = 2**32 - 1  # at the place of training's step in the seed, so that validation draws other numbers


class Validator:
    """Validates one policy during its training, always on the same prompts."""

    def __init__(
        self,
        config: TrainConfig,
        examples: Sequence[Example],
        policy: Policy,
        engine: RolloutEngine,
        scorer: Scorer,
        ranks: Ranks = ALONE,
    ) -> None:
        assert config.validation is not None
        self._config, self._settings = config, config.validation
        self._examples, self._policy, self._engine, self._scorer = examples, policy, engine, scorer
        self._probe = ExpertProbe(examples, config)
        self._ranks = ranks
        self._stops = bool(labels_with(config.rewards, "stop"))

    @property
    def before_training(self) -> bool:
        """Return true if a validation precedes the first step."""
        return self._settings.before_training

    def due(self, step: int, *, last: bool) -> bool:
        """Return if a validation follows `step` (from 1)."""
        return last or step % self._settings.every_steps == 0

    def validate(self, step: int) -> dict[str, float]:
        """Return validation/ metrics with their intervals, and expert/probe_ metrics if the data has experts. `step`:
        the number of steps that the run has taken.

        Each process samples its slice of the prompts; all processes get the metrics of all prompts.

        Raises:
            NoVerdictError: a verdict is missing that `on_failure: stop` requires.
        """
        place = self._ranks.my_slice(len(self._examples))
        with self._engine.sampling(step):
            own = self._sample(step, self._examples[place.start : place.stop], place.start)
        if self._stops:
            reason = self._scorer.stop_reason(score for row in own.scores for score in row)
            check_needed(self._ranks.gather_everywhere(reason))
        parts = self._ranks.gather(own)
        with self._policy.weights.gathered():  # only the first process measures
            values = None if parts is None else self._measure(concatenate(parts))
        metrics = self._ranks.from_first(values)
        assert metrics is not None
        return metrics

    def _sample(self, step: int, examples: Sequence[Example], first: int) -> Answers:
        rollout = self._config.validation_rollout
        request = SamplingRequest(
            group_size=self._settings.samples,
            temperature=rollout.temperature,
            max_tokens=rollout.max_completion_tokens,
            sampling=rollout,
            seed=[self._config.seed, _SEED, step],
            first_row=first * self._settings.samples,
        )
        return sample_answers(self._engine, examples, self._scorer, request)

    def _measure(self, answers: Answers) -> dict[str, float]:
        summary = summarise(answers, self._config.seed, answer_form(self._config.rewards))
        return {
            **{f"validation/{name}": value for name, value in summary.items()},
            **self._probe.measure(self._policy, answers.logprobs),
        }
