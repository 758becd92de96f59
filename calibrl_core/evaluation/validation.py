"""Sampled accuracy on validation data during training, and log-probability of validation experts under the policy."""

from __future__ import annotations

import time
from collections.abc import Sequence

from calibrl_core.config import TrainConfig
from calibrl_core.data.changed_images import ChangedImages
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.evaluation.accuracy import (
    Answers,
    accuracy_with_change,
    batch_size,
    concatenate,
    sample_answers,
    summarise,
)
from calibrl_core.evaluation.expert_probe import ExpertProbe
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import RolloutEngine, SamplingRequest
from calibrl_core.settings.image_changes import ImageChange
from calibrl_core.step.prompt_source import PromptSource
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
        prompts: PromptSource,
        ranks: Ranks = ALONE,
    ) -> None:
        assert config.validation is not None
        self._config, self._settings = config, config.validation
        self._examples, self._policy, self._engine, self._scorer = examples, policy, engine, scorer
        self._prompts = prompts
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
        """Return validation/ metrics with their intervals, expert/probe_ metrics if the data has experts, and the time
        that this takes. `step`: the number of steps that the run has taken.

        Each process samples its slice of the prompts; all processes get the metrics of all prompts.

        Raises:
            DataError: as `PromptEncoder.encode`.
            NoVerdictError: a verdict is missing that `on_failure: stop` requires.
        """
        began = time.perf_counter()
        with self._engine.sampling(step):
            own = self._sample(step, self._examples)
            changed = {
                change: self._sample(step, ChangedImages(self._examples, change))
                for change in self._settings.image_changes
            }
        if self._stops:
            scores = (score for answers in (own, *changed.values()) for row in answers.scores for score in row)
            check_needed(self._ranks.gather_everywhere(self._scorer.stop_reason(scores)))
        parts = self._ranks.gather((own, changed))
        with self._policy.weights.gathered():  # only the first process measures
            values = None if parts is None else self._measure(parts)
        metrics = self._ranks.from_first(values)
        assert metrics is not None
        return {**metrics, "perf/validation_seconds": time.perf_counter() - began}

    def answers(self, step: int) -> Answers:
        """Return the answers to all prompts that one process samples with the random numbers of a validation after
        `step`.

        Raises:
            DataError, NoVerdictError: as `validate`.
        """
        with self._engine.sampling(step):
            answers = self._sample(step, self._examples)
        if self._stops:
            check_needed([self._scorer.stop_reason(score for row in answers.scores for score in row)])
        return answers

    def _in_order_of_use(self, examples: Sequence[Example], first: int) -> list[Example]:
        """Return the examples as the engine encodes them: batch by batch, long prompts first."""
        size, lengths = batch_size(self._settings.samples), self._policy.prompt_lengths(examples)
        order = sorted(range(len(examples)), key=lambda place: ((first + place) // size, -lengths[place]))
        return [examples[place] for place in order]

    def _sample(self, step: int, shown: Sequence[Example]) -> Answers:
        """Return this process's share of the answers. `shown`: all prompts as the policy sees them."""
        rollout, place = self._config.validation_rollout, self._ranks.my_slice(len(shown))
        mine = slice(place.start, place.stop)
        seen = [*shown[mine]]  # changed images are made once
        if self._prompts.ahead and self._config.rollout.engine == "shared_prefill":  # vLLM has its own image processor
            self._prompts.begin(self._in_order_of_use(seen, place.start))
        request = SamplingRequest(
            group_size=self._settings.samples,
            temperature=rollout.temperature,
            max_tokens=rollout.max_completion_tokens,
            sampling=rollout,
            seed=[self._config.seed, _SEED, step],
            first_row=place.start * self._settings.samples,
        )
        return sample_answers(self._engine, self._examples[mine], self._scorer, request, seen)

    def _measure(self, parts: Sequence[tuple[Answers, dict[ImageChange, Answers]]]) -> dict[str, float]:
        answers = concatenate([own for own, _ in parts])
        summary = summarise(answers, self._config.seed, answer_form(self._config.rewards))
        for change in self._settings.image_changes:
            of_change = concatenate([changed[change] for _, changed in parts])
            summary |= accuracy_with_change(change, of_change, self._config.seed)
        return {
            **{f"validation/{name}": value for name, value in summary.items()},
            **self._probe.measure(self._policy, answers.logprobs),
        }
