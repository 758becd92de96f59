"""Training: the loop, on one page.

    python -m calibrl_core.train config.json --run-dir DIR

runs alone, with no service: it draws a progress bar, appends to DIR/events.jsonl (see `calibrl_core.report`), keeps
checkpoints in DIR/checkpoints, and goes on from the newest one when started again. SIGTERM: checkpoint, then exit.

One process, one device; each step samples, learns from exactly those samples, and forgets them.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from calibrl_core import data, order
from calibrl_core.accuracy import ask, summarise
from calibrl_core.algorithms import SFT
from calibrl_core.checkpoint import Checkpoints, TrainerState, read_state, restore_optimizer
from calibrl_core.config import PathModel, TrainConfig
from calibrl_core.data.schema import DataError, Example
from calibrl_core.learners import Learner, ReinforcementLearner, StepResult, SupervisedLearner
from calibrl_core.models.policy import load_policy
from calibrl_core.optimizer import learning_rate, make_optimizer
from calibrl_core.report import Report
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.samples import report_groups

IDLE_STEPS = 10  # in a row without an advantage, before the log says so
VALIDATION_SEED = 1  # beside the config's seed: validation draws other numbers than training


def train(config: TrainConfig, report: Report, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Run to the end, to the validation target, or until `should_stop()`; return the result that `finish` reports.

    Raises DataError (bad rows, no experts), NonFiniteError, OSError (files), torch.OutOfMemoryError.
    """
    run = _Run(config, report)
    run.announce()
    ended = run.reached_target or run.state.step >= config.steps
    while not ended and not should_stop():
        ended = run.advance()
    if ended:
        run.report.emit("progress", step=run.state.step, steps_total=run.state.step)  # a target may have come early
    run.save_if_new()
    return {"status": "succeeded" if ended else "stopped", "step": run.state.step, "result": run.result()}


class _Run:
    """One run: what it learns with, and how far it is."""

    def __init__(self, config: TrainConfig, report: Report) -> None:
        self.config, self.report = config, report
        self.checkpoints = Checkpoints(report.run_dir, config.checkpoints.keep_last)
        saved = self.checkpoints.all()
        self.state = read_state(saved[-1]) if saved else TrainerState()
        self.policy = load_policy(PathModel(path=str(saved[-1])) if saved else config.model)
        self.optimizer = make_optimizer(self.policy, config.optimizer)
        if saved:
            restore_optimizer(saved[-1], self.optimizer)
        self.engine = SharedPrefillEngine(self.policy)
        self.idle_steps = 0  # in a row, in which no group had an advantage
        self.learner = self._make_learner()
        self.examples = data.load(config.data)
        self.validation_examples = data.load(config.validation.data) if config.validation else []
        if config.algorithm.needs_experts:
            self._require_experts()

    def _make_learner(self) -> Learner:
        if isinstance(self.config.algorithm, SFT):
            return SupervisedLearner(self.config, self.policy, self.optimizer)
        return ReinforcementLearner(self.config, self.policy, self.engine, self.optimizer)

    def _require_experts(self) -> None:
        having = [example for example in self.examples if example.expert]
        if not having:
            raise DataError(f"data: no row has an expert, and {self.config.algorithm.type} needs experts")
        if isinstance(self.config.algorithm, SFT):
            self.examples = having  # there is nothing to imitate in the others

    @property
    def reached_target(self) -> bool:
        target = self.config.validation.stop_at_accuracy if self.config.validation else None
        return target is not None and (self.state.best_value or 0.0) >= target

    def announce(self) -> None:
        """Tell what runs, from where, and which checkpoints there are: a kill may have kept them from being told of."""
        self.report.emit(
            "start",
            step=self.state.step,
            steps_total=self.config.steps,
            parameters=self.policy.parameter_count,
            versions={"torch": torch.__version__},
        )
        for path in self.checkpoints.all():
            self._report_checkpoint(path, read_state(path), [])

    def advance(self) -> bool:
        """One step with all that it entails; whether it was the last."""
        config, began = self.config, time.perf_counter()
        step = self.state.step  # from 0; reported from 1: metrics of step n describe the n-th update
        torch.manual_seed(hash((config.seed, step)) & 0x7FFFFFFF)  # dropout, in models that have it
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.optimizer, step, config.steps)
        chosen = order.step_indices(config.seed, step, len(self.examples), config.prompts_per_step)
        examples = [self.examples[index] for index in chosen]
        result = self.learner.step(step, examples)
        metrics = {**result.metrics, "perf/step_seconds": time.perf_counter() - began}
        self.state.step += 1
        last = self.state.step == config.steps
        self._warn_if_idle(metrics)
        improved = self._validate(metrics) if self._validation_due(last) else False
        self._report_step(result, metrics, examples, last)
        if improved or last or self.state.step % config.checkpoints.every_steps == 0:
            self._save(metrics)
        return last or self.reached_target

    def _report_step(self, result: StepResult, metrics: dict[str, float], examples: list[Example], last: bool) -> None:
        step, samples = self.state.step, self.config.samples
        for name, (edges, counts) in result.histograms.items():
            self.report.emit("histogram", step=step, name=name, edges=edges, counts=counts)
        if result.batch is not None and (step == 1 or last or step % samples.every_steps == 0):
            report_groups(self.report, step, self.policy, result.batch, samples.groups)
        self.report.emit("metrics", step=step, values=metrics)

    def _warn_if_idle(self, metrics: dict[str, float]) -> None:
        """Say once that nothing is learned: every group's rewards are equal, step after step."""
        if "exploration/active_groups" not in metrics:
            return
        self.idle_steps = 0 if metrics["exploration/active_groups"] else self.idle_steps + 1
        if self.idle_steps == IDLE_STEPS:
            rewards = "0" if metrics["reward/mean"] == 0 else f"{metrics['reward/mean']:.3g}"
            message = (
                f"nothing is learned: for {IDLE_STEPS} steps every group's rewards were equal (mean {rewards}). "
                "Where no answer is ever right, warm the model up on expert traces first ({type: sft}) or ask easier "
                "questions; where all are, ask harder ones."
            )
            self.report.emit("log", level="warning", message=message)

    def _validation_due(self, last: bool) -> bool:
        validation = self.config.validation
        return validation is not None and (last or self.state.step % validation.every_steps == 0)

    def _validate(self, metrics: dict[str, float]) -> bool:
        """Add validation/ to the metrics; whether its accuracy is the best so far."""
        validation, config = self.config.validation, self.config
        assert validation is not None
        answers = ask(
            self.engine,
            self.validation_examples,
            config.rewards,
            samples=validation.samples,
            temperature=config.rollout.temperature,
            max_tokens=config.rollout.max_completion_tokens,
            seed=[config.seed, VALIDATION_SEED, self.state.step],
        )
        summary = summarise(answers, config.seed)
        metrics.update({f"validation/{name}": value for name, value in summary.items()})
        if summary["accuracy"] <= (self.state.best_value or 0.0):
            return False
        self.state.best_step, self.state.best_value = self.state.step, summary["accuracy"]
        if self.reached_target:
            message = f"validation/accuracy {summary['accuracy']:.3f} reached stop_at_accuracy: the run ends here"
            self.report.emit("log", level="info", message=message)
        return config.checkpoints.keep_best is not None

    def _save(self, metrics: dict[str, float]) -> None:
        self.state.metrics = {name: value for name, value in metrics.items() if name.startswith("validation/")}
        path = self.checkpoints.save(self.policy, self.optimizer, self.state)
        surplus = self.checkpoints.surplus(self.state.best_step if self.config.checkpoints.keep_best else None)
        self._report_checkpoint(path, self.state, surplus)  # first: a kill in between is mended by `announce`
        self.checkpoints.remove(surplus)

    def _report_checkpoint(self, path: Path, state: TrainerState, removed: list[Path]) -> None:
        self.report.emit(
            "checkpoint",
            step=state.step,
            path=str(path),
            best=self.state.best_step == state.step,
            metrics=state.metrics,
            removed=[str(gone) for gone in removed],
        )

    def save_if_new(self) -> None:
        """A checkpoint of where the run stands, unless there is one."""
        saved = self.checkpoints.all()
        if self.state.step > 0 and (not saved or read_state(saved[-1]).step < self.state.step):
            self._save({})

    def result(self) -> dict[str, Any]:
        """What to remember of the run."""
        saved = self.checkpoints.all()
        best = [path for path in saved if read_state(path).step == self.state.best_step]
        return {
            "last_checkpoint": str(saved[-1]) if saved else None,
            "best_checkpoint": str(best[0]) if best else None,
            "best_step": self.state.best_step,
            "best_validation_accuracy": self.state.best_value,
        }


if __name__ == "__main__":
    from calibrl_core.process import run_process

    run_process(TrainConfig, train)
