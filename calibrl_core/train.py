"""Training: the whole loop on one page.

    python -m calibrl_core.train config.json --run-dir DIR

runs without a service. It draws a progress bar, appends to DIR/events.jsonl (see `calibrl_core.report`), writes
checkpoints to DIR/checkpoints, and resumes from the newest one when started again. SIGTERM: checkpoint, then exit.
Several GPUs: `accelerate launch --num_processes N -m calibrl_core.train ...` (see docs/explanation/distributed.md).

Each step samples rollouts, learns from exactly these, and then drops them. With `rollout.max_staleness` 1 they are
sampled while the step before learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
import torch

from calibrl_core.algorithms import PolicyGradientSettings, SupervisedSettings
from calibrl_core.config import TrainConfig
from calibrl_core.data.order import DataOrder
from calibrl_core.data.row_cache import row_cache
from calibrl_core.data.schema import DataError, DataSource, Example
from calibrl_core.data.views import Selected, repeats_of, without
from calibrl_core.diagnostics.hardware import HardwareUse
from calibrl_core.diagnostics.solved import SolvedPrompts
from calibrl_core.distributed.ranks import ALONE, LaunchError, Ranks
from calibrl_core.evaluation.validation import Validator
from calibrl_core.health import HealthMonitor
from calibrl_core.health.rule import Alert
from calibrl_core.host.stop_signal import StopRequested, StopSignal
from calibrl_core.models.encoding_workers import EncodingWorkers, useful_workers
from calibrl_core.models.policy import Policy, load_policy, make_reference
from calibrl_core.models.positions import check_positions
from calibrl_core.models.weights import sharding_of
from calibrl_core.report import Report, health_sentence
from calibrl_core.rollout.engines import make_engine
from calibrl_core.run.answer_check import CheckedAnswers, check_answers
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, read_state, restore_optimizer
from calibrl_core.run.identity import RunIdentity
from calibrl_core.run.model_check import checked
from calibrl_core.run.process import run_process
from calibrl_core.run.process_checks import process_problems
from calibrl_core.run.prompt_lengths import completion_limit, fit_prompts
from calibrl_core.run.row_check import all_results, check_rows
from calibrl_core.run.samples import report_groups
from calibrl_core.run.saving import Saving
from calibrl_core.run.sources import read_sources
from calibrl_core.run.surroundings import run_record
from calibrl_core.run.visits import report_visits
from calibrl_core.step.learners import Learner, ReinforcementLearner, RolloutParts, StepResult, SupervisedLearner
from calibrl_core.step.optimizer import GradientStep, learning_rate, make_optimizer, set_learning_rate
from calibrl_core.step.prompt_source import PromptSource
from calibrl_core.step.update import Updater
from calibrl_core.verifiers.base import read_truth
from calibrl_core.verifiers.scorer import NO_SERVICES, NoVerdictError, Score, Scorer
from calibrl_core.verifiers.services import Services


def train(
    config: TrainConfig,
    report: Report,
    should_stop: Callable[[], bool],
    ranks: Ranks = ALONE,
    services: Services = NO_SERVICES,
) -> dict[str, Any]:
    """Train until the last step, the validation target, `should_stop()` in any process (also within a step that has not
    updated the policy yet), or a health rule in `health.pause_on`. Return the fields of the `finish` event.

    Raises:
        DataError: rows are invalid, or there are no experts.
        LaunchError: settings do not fit the number of processes.
        ModelError: the model cannot be trained as configured.
        NonFiniteError: too many updates in a row are not finite.
        NoVerdictError: a verdict is missing that the settings require; the steps before are in a checkpoint.
        QuotaError: the checkpoints that must be kept need too much disk.
        RewardServiceError: a reward names a service that is not in `services`.
        ResumeError: the checkpoint in the run folder is of a run with other data, base model or fixed settings.
        OSError: files.
        torch.OutOfMemoryError: memory.
    """
    with Scorer(config.rewards, sandbox=config.sandbox, services=services) as scorer, ExitStack() as closing:
        stop = should_stop if isinstance(should_stop, StopSignal) else StopSignal(should_stop)
        run = TrainingRun(config, report, scorer, ranks, closing, stop=stop)
        run.announce()
        with run.saving.until_whole():
            run.validate_before_training()
            ended = run.reached_target or run.state.step >= run.steps
            while not ended and not run.paused_by and not ranks.any_process(stop()):
                try:
                    ended = run.advance()
                except NoVerdictError:
                    run.save_unchanged()
                    raise
                except StopRequested:  # before the update: the next start takes the step again
                    run.save_unchanged()
                    break
            if ended:  # a target can end the run early
                report.emit("progress", step=run.state.step, steps_total=run.state.step)
            run.save_if_new()
    outcome = {"status": "succeeded" if ended else "stopped", "step": run.state.step, "result": run.result()}
    if run.paused_by:  # after the last step too: jobs that need its result must not start
        outcome |= {"status": "stopped", "reason": "health", "message": run.pause_message(run.paused_by)}
    return outcome


class TrainingRun:
    """One run: policy, data and learner, and the number of completed steps."""

    def __init__(
        self,
        config: TrainConfig,
        report: Report,
        scorer: Scorer,
        ranks: Ranks,
        closing: ExitStack,
        checkpoint: Path | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        """Load or resume the run. `closing` releases its resources when the run ends. `checkpoint`: resume from this
        one. None: from the newest in the folder of the run, if there is one. `stop`: ends a step early.
        """
        for _, problem in process_problems(config, ranks.world):
            raise LaunchError(problem)
        self.config, self.report, self.ranks, self.stop = config, report, ranks, stop or StopSignal()
        checkpoints = Checkpoints(report.run_dir, config.checkpoints, ranks)
        self.saving = Saving(checkpoints, report, keeps_best=config.checkpoints.keep_best is not None)
        saved = checkpoint or ranks.from_first(next(reversed(checkpoints.all()), None))
        self.state = read_state(saved) if saved else TrainerState()
        self.saved_step = self.state.step
        self.identity = RunIdentity(config, self.state.identity if saved else None, ranks)
        sharding = sharding_of(config, ranks.world)
        self.policy = load_policy(config.model, config.precision, saved, config.prompts, sharding=sharding)
        examples, held_out = all_results(self._training_examples, self._validation_examples)
        self.check = checked(self.policy, config.model, examples, report, ranks)
        self.optimizer = make_optimizer(self.policy, config.optimizer)
        if saved:
            restore_optimizer(saved, self.optimizer, self.policy)
        self.engine = make_engine(config.rollout, self.policy, closing, ranks, config.micro_batch_tokens)
        self.scorer = scorer
        place = self.state.order or {"position": self.state.step * config.prompts_per_step, "waiting": []}
        self.steps = config.step_count(int(repeats_of(examples).sum()))
        self.order = DataOrder(
            examples,
            config.seed,
            config.prompts_per_step,
            shuffle=config.shuffle_data,
            curriculum=config.curriculum,
            state=place,
        )
        self.prompts = self._make_prompts(examples, closing)
        self.validator = self._make_validator(held_out)
        self.learner = config.algorithm.make_learner(self)
        self.solved = SolvedPrompts(self.state.solved)
        self.health = HealthMonitor(config.health, self.state.health)
        self.hardware = HardwareUse(self.policy.device, ranks)
        self.paused_by: Alert | None = None
        self.order_before: dict[str, Any] | None = None  # place in the data before a step that is not complete yet
        self.failures: dict[str, str] = {}  # first reason of each verifier that gave no verdict, by label

    def _make_prompts(self, examples: Sequence[Example], closing: ExitStack) -> PromptSource:
        config, ranks, encoder = self.config, self.ranks, self.policy.encoder
        most = -(-config.prompts_per_step // ranks.world)
        count = config.data_workers
        if count is None:
            count = useful_workers(encoder, examples, most, ranks.world)
        if count == 0:
            return PromptSource(self.order, encoder, ranks)
        workers = EncodingWorkers(encoder, count, most)
        closing.callback(workers.close)
        return PromptSource(self.order, encoder, ranks, workers)

    def supervised(self, algorithm: SupervisedSettings) -> Learner:
        """Return the learner of an algorithm that samples nothing: see `LearnerFactory`."""
        return SupervisedLearner(self.config, algorithm, self.policy, self.gradient_step(), self.prompts, self.ranks)

    def reinforcement(self, algorithm: PolicyGradientSettings) -> ReinforcementLearner:
        """Return the learner of an algorithm that samples: see `LearnerFactory`."""
        algorithm = algorithm.model_copy(
            update={name: value for name, value in self.state.moved.items() if name in algorithm.moving}
        )
        config = self.config.model_copy(update={"algorithm": algorithm})
        reference = self._reference if algorithm.needs_reference else None
        updater = Updater(self.policy, self.gradient_step(), config, reference, self.ranks)
        parts = RolloutParts(self.policy, self.engine, self.scorer, self.prompts, self.ranks, self.steps, self.stop)
        return ReinforcementLearner(config, algorithm, parts, updater)

    @cached_property
    def _reference(self) -> Policy:
        """Return the policy from the start of the run, which all learners of the run share."""
        return make_reference(self.policy, self.config.model, self.config.precision)

    def gradient_step(self) -> GradientStep:
        """Return what applies gradients to the weights."""
        return GradientStep(self.policy, self.optimizer, self.config.optimizer, self.ranks)

    def _make_validator(self, examples: Sequence[Example]) -> Validator | None:
        if self.config.validation is None:
            return None
        return Validator(self.config, examples, self.policy, self.engine, self.scorer, self.prompts, self.ranks)

    def _validation_examples(self) -> Sequence[Example]:
        return self._load("validation.data", [self.config.validation.data]) if self.config.validation else ()

    def _training_examples(self) -> Sequence[Example]:
        examples, algorithm = self._load("data", self.config.sources), self.config.algorithm
        if algorithm.needs_experts and not any(example.expert for example in examples):
            raise DataError(f"data: no row has an expert, and {algorithm.type} needs experts")
        if algorithm.samples:
            return examples
        # A row without an expert has nothing to imitate.
        return Selected(examples, [place for place, example in enumerate(examples) if example.expert])

    def _load(self, field: str, sources: Sequence[DataSource]) -> Sequence[Example]:
        """Return the examples of the sources whose prompts fit."""

        def length(example: Example) -> int:
            return self.policy.prompt_lengths([example])[0]

        def usable(place: int, source: DataSource, rows: Sequence[Example]) -> Sequence[Example]:
            known, answers_of = self.identity.dropped(place) if field == "data" else None, list[CheckedAnswers]()
            all_results(
                lambda: check_rows(field, source, rows, self.policy.encoder.fault),
                lambda: answers_of.append(check_answers(config, self.policy, field, source, rows, self.ranks, known)),
            )
            (found,) = answers_of
            for note in found.warnings:
                self._log("warning", note)
            if field == "data" and config.unearnable == "drop":
                self.identity.add_dropped(place, found.dropped)
            return without(rows, found.dropped)

        config, prompts = self.config, self.config.prompts
        cache, asks = row_cache(self.report), config.algorithm.samples
        answers = read_truth(config.rewards) and (asks or field != "data")  # without samples no reward is asked
        rows = read_sources(field, sources, config.seed, cache, self._log, usable, asks=asks, answers=answers)
        examples, counts = fit_prompts(rows, prompts, length)
        for count, what in (
            (counts.dropped_for_images, f"{prompts.max_images} images were dropped"),
            (counts.dropped, f"{prompts.max_tokens} tokens were dropped"),
            (counts.truncated, f"{prompts.max_tokens} tokens were truncated"),
        ):
            if count:
                self._log("warning", f"{field}: {count} prompts of more than {what}")
        self.identity.add_data(field, examples)
        if warning := check_positions(self.policy, field, examples, *completion_limit(config, field)):
            self._log("warning", warning)
        return examples

    def _log(self, level: str, message: str) -> None:
        self.report.emit("log", level=level, message=message)

    @property
    def reached_target(self) -> bool:
        target = self.config.validation.stop_at_accuracy if self.config.validation else None
        return target is not None and (self.state.best_value or 0.0) >= target

    def announce(self) -> None:
        """Report the start and all existing checkpoints: a kill can have prevented their own events."""
        self.report.emit(
            "start",
            step=self.state.step,
            steps_total=self.steps,
            parameters=self.policy.parameter_count,
            versions={"torch": torch.__version__, **self.scorer.versions},
            record=run_record(self.identity.values["digests"]) if self.ranks.first else {},
        )
        self.report.emit("checked", model_index=0, **asdict(self.check))
        for note in self.identity.notes:
            self._log("info", note)
        self.saving.announce(self.state.best_step)

    def validate_before_training(self) -> None:
        """Validate as step 0 if the run is at its start and the settings ask for it."""
        if self.validator and self.validator.before_training and self.state.step == 0:
            self.report.emit("metrics", step=0, values=self.validator.validate(0))

    def take_step(self) -> StepResult:
        """Take one step, without its validation, events and checkpoint."""
        config = self.config
        step = self.state.step  # from 0; reported from 1: metrics of step n describe the n-th update
        rate = learning_rate(config.optimizer, step, self.steps)
        set_learning_rate(self.optimizer, rate)
        encoder = self.policy.encoder
        encodings = encoder.encodings
        self.order_before = self.order.state()
        with encoder.held():
            result = self.learner.step(step, self.prompts.next_step())
        if config.curriculum == "measured":
            for ratios in self.ranks.gather_everywhere(result.pass_ratios):
                self.order.observe(ratios)
        self.state.step, self.state.moved = step + 1, result.moved
        self.order_before = None
        own = {"perf/encodings": encoder.encodings - encodings, "schedule/learning_rate": rate}
        return replace(result, metrics=result.metrics | own | {"schedule/epoch": self.order.epochs})

    def advance(self) -> bool:
        """Run one step with its validation, events and checkpoint; return if it was the last one."""
        result = self.take_step()
        metrics = {**result.metrics, **self.hardware.read()}
        last = self.state.step == self.steps
        if result.batch is not None:
            ids = [example.id for example in result.batch.examples]
            metrics |= self.solved.observe(ids, result.batch.passed.any(-1).tolist())
        improved = (
            self._validate(metrics) if self.validator and self.validator.due(self.state.step, last=last) else False
        )
        self._report_step(result, metrics, last)
        self._watch_health(metrics)
        if improved or last or self.state.step % self.config.checkpoints.every_steps == 0:
            self._save(metrics)
        self.saving.report_written(waits=False)
        return last or self.reached_target

    def _report_step(self, result: StepResult, metrics: dict[str, float], last: bool) -> None:
        step, samples = self.state.step, self.config.samples
        for name, (edges, counts) in result.histograms.items():
            self.report.emit("histogram", step=step, name=name, edges=edges, counts=counts)
        if result.batch is not None:
            self._report_failures([*result.batch.scores, *result.failed])
            report_visits(self.report, step, result.batch)
        if result.batch is not None and (step == 1 or last or step % samples.every_steps == 0):
            report_groups(self.report, step, self.policy, result.batch, samples.groups)
        self.report.emit("metrics", step=step, values=metrics)

    def _report_failures(self, scores: Sequence[Score]) -> None:
        """Report the reason of the first verdict of each verifier that failed. Later ones are only counted."""
        for score in scores:
            if score.failure and score.failed[0] not in self.failures:
                self.failures[score.failed[0]] = score.failure
                what = f"a verdict is missing (verdict/failures/{score.failed[0]} counts them)"
                self._log("warning", f"{what}: {score.failure}")

    def pause_message(self, alert: Alert) -> str:
        """Return why the run pauses, with the reasons of failed verdicts if these are the cause."""
        reasons = self.failures.values() if alert.rule == "no_verdicts" else ()
        return " ".join([health_sentence(asdict(alert)), *reasons])

    def _watch_health(self, metrics: dict[str, float]) -> None:
        alerts = self.health.observe(self.state.step, metrics)
        for alert in alerts:
            self.report.emit("health", **asdict(alert))
        self.paused_by = self.ranks.from_first(self.health.pausing(alerts))  # only the first process has all metrics

    def _validate(self, metrics: dict[str, float]) -> bool:
        """Add the metrics of a validation; return if its accuracy is the best so far."""
        assert self.validator is not None
        metrics.update(self.validator.validate(self.state.step))
        accuracy = metrics["validation/accuracy"]
        if accuracy <= (self.state.best_value or 0.0):
            return False
        self.state.best_step, self.state.best_value = self.state.step, accuracy
        if self.reached_target:
            self._log("info", f"validation/accuracy {accuracy:.3f} reached stop_at_accuracy: the run ends here")
        return self.config.checkpoints.keep_best is not None

    def _save(self, metrics: dict[str, float], order: dict[str, Any] | None = None) -> None:
        self.state.metrics = {name: value for name, value in metrics.items() if name.startswith("validation/")}
        self.state.solved, self.state.health = self.solved.state(), self.health.state()
        self.state.identity, self.state.order = self.identity.values, order or self.order.state()
        self.saving.begin(self.policy, self.optimizer, self.state)
        self.saved_step = self.state.step

    def save_if_new(self) -> None:
        """Write a checkpoint of the current step, unless it exists."""
        if self.state.step > self.saved_step:
            self._save({})

    def save_unchanged(self) -> None:
        """Write a checkpoint of the last whole step, unless it exists: the step that has failed is taken again."""
        if self.state.step > self.saved_step:
            self._save({}, self.order_before)

    def result(self) -> dict[str, Any]:
        """Return the summary of the run; empty in all processes that do not write checkpoints."""
        return self.saving.result(self.state) if self.ranks.first else {}


def main() -> None:
    """Run the command that the module's docstring describes."""
    run_process(TrainConfig, train)


if __name__ == "__main__":
    main()
