"""Bisection of checkpoints: a planted bad update is found, with its groups, and changes for a fork fit every spec."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from calibrl_core import train as training
from calibrl_core.algorithms.registry import ALGORITHMS
from calibrl_core.bisect import bisect
from calibrl_core.bisection.judge import ACCURACY, MEASURES, Judge
from calibrl_core.bisection.remedies import REMEDIES, spec_changes
from calibrl_core.bisection.settings import NO_UPDATE, BisectConfig
from calibrl_core.config import TrainConfig
from calibrl_core.evaluation.accuracy import Answers
from calibrl_core.health.settings import RuleName
from calibrl_core.report import EventFile
from calibrl_core.run import surroundings
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.step.optimizer import learning_rate
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Score, Scorer
from tests.support.training import config, of_type, score_by_hash

BAD = 5  # the planted step, from 1
FIRED = 6
SETTINGS: dict[str, Any] = {
    "algorithm": {"type": "calibrl", "mini_batches": 1},
    "steps": 6,
    "rollout": {"group_size": 4, "max_completion_tokens": 6},
    "checkpoints": {"every_steps": 1, "keep_last": 6},
    "validation": {"data": {"builtin": "digits", "split": "test", "rows": 6}, "samples": 4, "every_steps": 1},
}


@pytest.fixture(scope="module", autouse=True)
def planted() -> Iterator[None]:
    """Raise the learning rate of one step a thousandfold."""

    def planted_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
        return learning_rate(settings, step, steps) * (1000 if step == BAD - 1 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "grade", score_by_hash)
        patch.setattr(surroundings, "_git", lambda root, *arguments: None)
        patch.setattr(training, "learning_rate", planted_rate)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the config of a training with the planted step."""
    folder = tmp_path_factory.mktemp("run")
    settings = config(**SETTINGS)
    report = EventFile(folder)
    train(settings, report, lambda: False)
    report.close()
    return folder, dict(settings.model_dump(mode="json"))


def bisected(run: tuple[Path, dict[str, Any]], *steps: int, stops: bool = False) -> Any:
    """The `finish` event of a bisection of the checkpoints of these steps."""
    folder, settings = run
    kept = [{"path": str(folder / "checkpoints" / f"step-{step:06d}")} for step in steps]
    alert = {"kept": kept, "rule": "entropy_collapse", "fired_step": FIRED}
    report = EventFile(folder / f"bisection-{len(list(folder.glob('bisection-*')))}")
    ended = bisect(BisectConfig.model_validate(settings | alert), report, lambda: stops)
    report.close()
    return ended


@pytest.mark.slow
def test_the_planted_update_and_its_group_are_found(run: tuple[Path, dict[str, Any]]) -> None:
    found = bisected(run, 1, 2, 3, 6)["result"]
    assert (found["reference_step"], found["last_good"], found["first_bad"]) == (1, 3, 6)
    assert [(one["step"], one["replayed"], one["worse"]) for one in found["probes"]] == [
        (1, False, False),
        (6, False, True),
        (2, False, False),
        (3, False, False),
        (4, True, False),
        (5, True, True),
    ]
    update, recorded = found["update"], of_type(run[0], "metrics")[BAD - 1]["values"]
    assert (update["step"], update["learning_rate"]) == (BAD, 1.0)
    assert update["gradient_norm"] == pytest.approx(recorded["loss/grad_norm"], rel=1e-6)
    (moving,) = update["groups"]  # in the other group all rollouts passed: no gradient
    assert moving["gradient_norm"] == pytest.approx(recorded["loss/grad_norm"], rel=1e-5)
    assert (moving["passed"], moving["rollouts"]) == (1, 4)
    assert found["changes"][0]["changes"] == {"optimizer": {"lr": 0.00033}}


@pytest.mark.slow
def test_a_stopped_bisection_has_no_result(run: tuple[Path, dict[str, Any]]) -> None:
    assert bisected(run, 1, 6, stops=True) == {"status": "stopped", "step": 1, "result": {}}


def answers(passed: list[list[int]], logprobs: float = -1.0) -> Answers:
    scores = [[Score({}, float(one), bool(one), bool(one)) for one in row] for row in passed]
    shape = (len(passed), len(passed[0]))
    nothing = np.zeros(shape, np.int64)
    return Answers((), [], scores, nothing, nothing.astype(np.bool_), np.full(shape, logprobs))


def test_a_fall_counts_if_its_interval_excludes_0() -> None:
    """Every prompt falls from 1 to 1/2: no noise. One of eight falls: the interval includes 0."""
    judge = Judge(ACCURACY, 0, 10, answers([[1, 1]] * 8))
    assert judge.worse(20, answers([[1, 0]] * 8))
    assert not judge.worse(30, answers([[0, 0]] + [[1, 1]] * 7))
    assert [(one.step, one.value, one.difference) for one in judge.probes] == [
        (10, 1.0, 0.0),
        (20, 0.5, -0.5),
        (30, 0.875, -0.125),
    ]
    better = Judge(ACCURACY, 0, 10, answers([[1, 0]] * 8))
    assert not better.worse(20, answers([[1, 1]] * 8))


def test_entropy_counts_from_half_of_its_change() -> None:
    """From 4 to 1 nats at the bad end: worse is at most 2.5 nats."""
    judge = Judge(MEASURES["entropy_collapse"], 0, 10, answers([[1]] * 4, -4.0))
    assert judge.worse(50, answers([[1]] * 4, -1.0))
    judge.set_end()
    assert [judge.worse(20, answers([[1]] * 4, -nats)) for nats in (2.75, 2.25)] == [False, True]
    assert not Judge(MEASURES["entropy_explosion"], 0, 10, answers([[1]], -4.0)).worse(20, answers([[1]], -1.0))


@pytest.mark.parametrize("rule", [rule for rule in REMEDIES if rule not in NO_UPDATE])
def test_changes_fit_every_algorithm(rule: RuleName) -> None:
    for algorithm in ALGORITHMS:
        given = config(algorithm={"type": algorithm}, prompts_per_step=4)
        changes = spec_changes(given, rule)
        assert 2 <= len(changes) <= 3
        for one in changes:
            ((part, value),) = one.changes.items()
            settings = given.model_dump(mode="json")
            settings[part] = settings[part] | value if isinstance(value, dict) else value
            assert TrainConfig.model_validate(settings) != given


def test_what_a_probe_cannot_explain_is_refused() -> None:
    kept = [{"path": "/a"}, {"path": "/b"}]
    given = {**config(**SETTINGS).model_dump(mode="json"), "kept": kept, "fired_step": 6}
    with pytest.raises(ValidationError, match="no update causes no_verdicts; the log has the reason"):
        BisectConfig.model_validate(given | {"rule": "no_verdicts"})
    with pytest.raises(ValidationError, match="has no validation data, which the probe needs"):
        BisectConfig.model_validate(given | {"rule": "overfitting", "validation": None})
