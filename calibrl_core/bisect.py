"""Bisection of the checkpoints of a training for which a health rule fired: which update made its policy worse?

    python -m calibrl_core.bisect config.json --run-dir DIR

The probe is the validation of the training, with one seed for all policies. It bisects the checkpoints between the best
one before the alert and the first one after it. Then the steps between the last good and the first bad checkpoint are
taken again, with a probe after each: in float32 and on the same kind of machine, these are the run's own steps. The
result is a `Bisection` (`calibrl_core.bisection.facts`).

One process. The engine is the trainer's own (`shared_prefill`).
"""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
import torch
from torch import Tensor

from calibrl_core.bisection.facts import BadUpdate, Bisection, GroupGradient
from calibrl_core.bisection.judge import ACCURACY, MEASURES, Judge
from calibrl_core.bisection.remedies import spec_changes
from calibrl_core.bisection.settings import BisectConfig
from calibrl_core.data.schema import DataError
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.shown import shortened
from calibrl_core.distributed.ranks import ALONE, LaunchError, Ranks
from calibrl_core.evaluation.accuracy import Answers
from calibrl_core.report import Report, SilentReport
from calibrl_core.run.checkpoint import read_state
from calibrl_core.run.process import run_process
from calibrl_core.step.learners import ReinforcementLearner
from calibrl_core.step.update import Updater
from calibrl_core.train import TrainingRun
from calibrl_core.verifiers.scorer import NO_SERVICES, Scorer
from calibrl_core.verifiers.services import Services

SHOWN = 8  # groups
CHARACTERS = 2000  # of a prompt or a completion
SEED_STEP = 0  # every probe draws the random numbers of a validation after this step


class _StopRequested(Exception):
    """Raised between two measurements if the run must stop."""


def bisect(
    config: BisectConfig,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
    services: Services = NO_SERVICES,
) -> dict[str, Any]:
    """Bisect until the end or until `should_stop()`; return the fields of the `finish` event. After a stop the
    bisection starts again.

    Raises:
        DataError: rows are invalid, or there is no checkpoint after the reference.
        LaunchError: there are several processes.
        ModelError, NoVerdictError, RewardServiceError, ResumeError, OSError, torch.OutOfMemoryError: as `train`.
    """
    if ranks.world > 1:
        raise LaunchError("a bisection runs in one process: set resources.machines to 1 and resources.gpus to 0 or 1")
    with Scorer(config.rewards, sandbox=config.sandbox, services=services) as scorer:
        search = _Search(config, report, scorer, should_stop)
        report.emit("start", step=0, steps_total=search.total, versions=scorer.versions)
        try:
            found = search.result()
        except _StopRequested:
            return {"status": "stopped", "step": search.done, "result": {}}
    return {"status": "succeeded", "step": search.done, "result": found.model_dump(mode="json")}


class _Search:
    def __init__(self, config: BisectConfig, report: Report, scorer: Scorer, should_stop: Callable[[], bool]) -> None:
        self._config, self._report, self._scorer, self._should_stop = config, report, scorer, should_stop
        paths = (Path(one.path) for one in config.kept)
        self._states = {state.step: (path, state.metrics) for path in paths for state in [read_state(path)]}
        self._steps = sorted(self._states)
        self.done = 0
        self.total = 2 + math.ceil(math.log2(len(self._steps)))  # probes; the steps taken again add theirs

    def result(self) -> Bisection:
        config, measure = self._config, MEASURES.get(self._config.rule, ACCURACY)
        reference = self._reference()
        answers = self._probe(reference)
        judge = Judge(measure, config.seed, reference, answers)
        good, bad = self._interval(judge, reference)
        update = None if bad is None else self._bad_update(judge, good, bad)
        return Bisection(
            rule=config.rule,
            fired_step=config.fired_step,
            measure=measure.name,
            prompts=len(answers.examples),
            samples=answers.lengths.shape[1],
            reference_step=reference,
            probes=judge.probes,
            last_good=good,
            first_bad=bad,
            update=update,
            changes=spec_changes(config, config.rule),
        )

    def _reference(self) -> int:
        """Return the step of the checkpoint to compare with: before the alert, the one with the best validation if the
        probe measures accuracy and validations are known, else the first.
        """
        before = [step for step in self._steps if step < self._config.fired_step] or self._steps[:1]
        known = {step: self._states[step][1].get("validation/accuracy") for step in before}
        accuracies = {step: value for step, value in known.items() if value is not None}
        if self._config.rule in MEASURES or not accuracies:
            return before[0]
        return max(accuracies, key=lambda step: accuracies[step])

    def _interval(self, judge: Judge, reference: int) -> tuple[int, int | None]:
        """Return the last good and the first bad checkpoint. The bad end is the first checkpoint after the alert, or
        the last one if that is not worse.
        """
        steps = [step for step in self._steps if step >= reference]
        if len(steps) < 2:
            raise DataError(f"kept: there is no checkpoint after that of step {reference}, which is the best")
        after = next((step for step in steps[1:] if step >= self._config.fired_step), steps[-1])
        low = 0
        for end in dict.fromkeys((after, steps[-1])):
            high = steps.index(end)
            if judge.worse(end, self._probe(end)):
                judge.set_end()
                break
            low = high
        else:
            return reference, None
        while high - low > 1:
            middle = (low + high) // 2
            if judge.worse(steps[middle], self._probe(steps[middle])):
                high = middle
            else:
                low = middle
        return steps[low], steps[high]

    def _bad_update(self, judge: Judge, good: int, bad: int) -> BadUpdate | None:
        """Take the steps after `good` again until the probe is worse; return that step."""
        self.total = self.done + bad - good
        with self._run_at(good) as run:
            updater = run.learner.updater if isinstance(run.learner, ReinforcementLearner) else None
            for step in range(good + 1, bad + 1):
                weights = [parameter.detach().clone() for parameter in run.policy.trained.values()]
                algorithm = updater.algorithm if updater else None
                result = run.take_step()
                if not judge.worse(step, self._answers(run), replayed=True):
                    continue
                groups = []
                if updater is not None and algorithm is not None and result.batch is not None:
                    _put_back(run, weights)
                    updater.algorithm = algorithm  # a control can have moved it after the step
                    groups = _groups(updater, result.batch, step - 1)
                norm = result.metrics.get("loss/grad_norm", math.nan)
                return BadUpdate(
                    step=step,
                    learning_rate=run.optimizer.param_groups[0]["lr"],
                    gradient_norm=norm if math.isfinite(norm) else None,
                    groups=groups,
                )
        return None

    def _probe(self, step: int) -> Answers:
        with self._run_at(step) as run:
            return self._answers(run)

    def _answers(self, run: TrainingRun) -> Answers:
        assert run.validator is not None
        with run.policy.encoder.held():
            answers = run.validator.answers(SEED_STEP)
        self.done += 1
        self.total = max(self.total, self.done)
        self._report.emit("progress", step=self.done, steps_total=self.total)
        if self._should_stop():
            raise _StopRequested
        return answers

    @contextmanager
    def _run_at(self, step: int) -> Iterator[TrainingRun]:
        """Return the run at a checkpoint. The first load reports its warnings, the others are silent."""
        report = self._report
        if self.done:
            report = SilentReport(report.run_dir, report.cache_dir, report.cache_bytes)
        with ExitStack() as closing:
            yield TrainingRun(self._config, report, self._scorer, ALONE, closing, self._states[step][0])
        gc.collect()  # a model is part of reference cycles: without this call it stays while the next one loads


@torch.no_grad()
def _put_back(run: TrainingRun, weights: list[Tensor]) -> None:
    for parameter, before in zip(run.policy.trained.values(), weights, strict=True):
        parameter.copy_(before)


def _groups(updater: Updater, batch: StepBatch, step: int) -> list[GroupGradient]:
    """Return the groups of a step with the largest gradients at the weights before it. `step`: from 0."""
    old = updater.recompute_logprobs(batch, step) if updater.recomputes_logprobs else None
    norms = updater.group_gradient_norms(batch, step, old)
    moving = [place for place, norm in enumerate(norms) if norm > 0]
    places = sorted(moving, key=lambda place: -norms[place])[:SHOWN]
    return [_group(batch, place, norms[place]) for place in places]


def _group(batch: StepBatch, place: int, norm: float) -> GroupGradient:
    example, size = batch.examples[place], batch.rollouts.group_size
    row = int(batch.advantages[place].abs().argmax())
    return GroupGradient(
        prompt_id=example.id,
        prompt=shortened(example.question, CHARACTERS),
        gradient_norm=norm,
        rollouts=size,
        passed=int(batch.passed[place].sum()),
        reward=batch.rewards[place].mean().item(),
        completion=shortened(batch.rollouts.texts[place * size + row], CHARACTERS),
        advantage=batch.advantages[place, row].item(),
    )


def main() -> None:
    """Run the command that the module's docstring describes."""
    run_process(BisectConfig, bisect)


if __name__ == "__main__":
    main()
