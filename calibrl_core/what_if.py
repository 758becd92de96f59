"""Comparison of the update after a checkpoint with those of other settings and algorithms. Nothing is trained.

    python -m calibrl_core.what_if config.json --run-dir DIR

The run is restored from its checkpoint and samples the next step: with the same seed, in float32 and on the same kind
of machine, these are the run's own rollouts. Each update is made from the same weights, measured and taken back. The
result is a `WhatIf` (`calibrl_core.variants.facts`).

One process. The engine is the trainer's own (`shared_prefill`), so that rollouts of a run on vLLM are others than its
own, from the same policy.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
from calibrl_core.algorithms import AlgorithmSettings, PolicyGradientSettings
from calibrl_core.data.schema import DataError
from calibrl_core.distributed.ranks import ALONE, LaunchError, Ranks
from calibrl_core.report import Report
from calibrl_core.run.process import run_process
from calibrl_core.step.dynamic_sampling import ScoredRollouts
from calibrl_core.step.learners import ReinforcementLearner
from calibrl_core.step.optimizer import learning_rate, set_learning_rate
from calibrl_core.train import TrainingRun
from calibrl_core.variants.comparison import (
    OWN,
    Contestant,
    StepStart,
    UpdateComparison,
    changed_settings,
    check_update,
)
from calibrl_core.variants.facts import WhatIf
from calibrl_core.variants.settings import WhatIfConfig
from calibrl_core.verifiers.scorer import NO_SERVICES, Scorer
from calibrl_core.verifiers.services import Services


def what_if(
    config: WhatIfConfig,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
    services: Services = NO_SERVICES,
) -> dict[str, Any]:
    """Compare the updates until the end or until `should_stop()`; return the fields of the `finish` event. After a stop
    the comparison starts again.

    Raises:
        DataError: rows are invalid, or the step has no such update.
        LaunchError: there are several processes.
        ModelError, NoVerdictError, RewardServiceError, ResumeError, OSError, torch.OutOfMemoryError: as `train`.
    """
    if ranks.world > 1:
        raise LaunchError("a what-if runs in one process: set resources.machines to 1 and resources.gpus to 0 or 1")
    with Scorer(config.rewards, sandbox=config.sandbox, services=services) as scorer, ExitStack() as closing:
        run = TrainingRun(config, report, scorer, ranks, closing, Path(config.checkpoint.path))
        total = 1 + len(config.variants)
        report.emit("start", step=0, steps_total=total, versions=scorer.versions)
        with run.policy.encoder.held():
            contestants = _contestants(config, run)
            if problem := check_update(contestants, config.update):
                raise DataError(problem)
            rate = learning_rate(config.optimizer, min(run.state.step, run.steps - 1), run.steps)
            set_learning_rate(run.optimizer, rate)
            start = StepStart(config, run.policy, run.optimizer, run.gradient_step, run.state.step)
            comparison = UpdateComparison(start, contestants[0], config.update)
            updates = []
            for number, one in enumerate(contestants, 1):
                updates.append(comparison.compare(one))
                report.emit("progress", step=number, steps_total=total)
                if should_stop():
                    return {"status": "stopped", "step": number, "result": {}}
        found = WhatIf(
            step=run.state.step + 1,
            update=config.update,
            learning_rate=rate,
            rollouts=len(comparison.rows),
            tokens=int(comparison.mask.sum()),
            quadrant_tokens=comparison.quadrant_tokens(),
            updates=updates,
            completions=comparison.completions(),
        )
    return {"status": "succeeded", "step": total, "result": found.model_dump(mode="json")}


def _contestants(config: WhatIfConfig, run: TrainingRun) -> list[Contestant]:
    """Sample the step, and return the run's own algorithm, then the variants, each with its batch of the step."""
    own, step = run.learner, run.state.step
    assert isinstance(own, ReinforcementLearner)
    with run.policy.images.cached():
        groups = own.sampled(step, run.prompts.next_step())
        first = _contestant(OWN, own, own, groups, step)
        run.state.moved = {}  # what the run's control has moved is in `own.algorithm`
        others = []
        for variant in config.variants:
            assert isinstance(variant.algorithm, PolicyGradientSettings)
            learner = run.reinforcement(_moved(variant.algorithm, own.algorithm, config.algorithm))
            others.append(_contestant(variant.name, own, learner, groups, step))
    return [first, *others]


def _moved(
    variant: PolicyGradientSettings, own: PolicyGradientSettings, given: AlgorithmSettings
) -> PolicyGradientSettings:
    """Return a variant with the values that the run's control has moved, except for settings that the variant changes.

    `own`: the algorithm of the run at its checkpoint; `given`: as in its spec.
    """
    names = [name for name in own.moving if getattr(variant, name, None) == getattr(given, name)]
    return variant.model_copy(update={name: getattr(own, name) for name in names})


def _contestant(
    name: str, own: ReinforcementLearner, learner: ReinforcementLearner, groups: ScoredRollouts, step: int
) -> Contestant:
    batch = learner.batch_of(step, groups)
    old = learner.updater.recompute_logprobs(batch, step) if learner.updater.recomputes_logprobs else None
    return Contestant(name, changed_settings(own.algorithm, learner.algorithm), learner.updater, batch, old)


def main() -> None:
    """Run the command that the module's docstring describes."""
    run_process(WhatIfConfig, what_if)


if __name__ == "__main__":
    main()
