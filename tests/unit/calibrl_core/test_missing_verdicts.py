"""Missing verdicts in a run: groups that leave the step, and runs that stop with a checkpoint."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.report import EventFile
from calibrl_core.run.checkpoint import read_state
from calibrl_core.train import train
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import NoVerdictError, Score, Scorer
from tests.support.training import config

WHY = "math: no answer"
Fails = Callable[[int, int], bool]  # (number of the batch from 1, place in it)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fails], list[int]]:
    """Let verdicts fail as a function says; return the sizes of the batches."""

    def let(fails: Fails) -> list[int]:
        batches: list[int] = []

        def grade(self: Scorer, inputs: Sequence[RewardInput]) -> list[Score]:
            batches.append(len(inputs))
            return [
                Score({"math": 0.0}, 0.0, False, False, WHY, ("math",))
                if fails(len(batches), place)
                else Score({"math": float(place % 2)}, place % 2, place % 2 == 1, False)
                for place in range(len(inputs))
            ]

        monkeypatch.setattr(Scorer, "grade", grade)
        return batches

    return let


def run(folder: Path, on_failure: str, **changes: Any) -> list[Any]:
    """Return the events of a run on two groups of two a step."""
    settings = {"algorithm": {"type": "grpo", "mini_batches": 1}, "steps": 3, "checkpoints": {"every_steps": 100}}
    report = EventFile(folder)
    try:
        train(config(rewards=[{"type": "math", "on_failure": on_failure}], **settings | changes), report, lambda: False)
    finally:
        report.close()
    return events(folder)


def events(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def metrics(found: list[Any]) -> list[Any]:
    return [event["values"] for event in found if event["type"] == "metrics"]


def test_a_missing_verdict_counts_as_0_by_default(tmp_path: Path, failing: Any) -> None:
    failing(lambda batch, place: (batch, place) == (1, 1))
    first, second, _ = metrics(run(tmp_path, "zero"))
    assert (first["reward/mean"], first["verdict/failures/math"]) == (1 / 4, 1.0)
    assert (second["reward/mean"], "verdict/failures/math" in second) == (2 / 4, False)


def test_a_group_without_all_verdicts_leaves_the_step(tmp_path: Path, failing: Any) -> None:
    """The first of two groups lacks a verdict: the step learns from the second, with rewards 0 and 1."""
    failing(lambda batch, place: (batch, place) == (1, 0))
    found = run(tmp_path, "drop_group")
    first, second, _ = metrics(found)
    assert (first["verdict/dropped_groups"], first["reward/mean"]) == (1.0, 0.5)
    assert "verdict/dropped_groups" not in second
    (line,) = [event["message"] for event in found if event["type"] == "log" and WHY in event["message"]]
    assert line == f"a verdict is missing (verdict/failures/math counts them): {WHY}"


def test_dynamic_sampling_replaces_a_group_without_all_verdicts(tmp_path: Path, failing: Any) -> None:
    batches = failing(lambda batch, place: (batch, place) == (1, 0))
    dapo = {"type": "dapo", "mini_batches": 1, "max_resamples": 1}
    first, *_ = metrics(run(tmp_path, "drop_group", algorithm=dapo, steps=1))
    assert batches == [4, 4]  # one of two was kept: two more prompts for one missing group
    assert (first["verdict/dropped_groups"], first["sampled/reward/verifier_failure_share"]) == (1.0, 1 / 8)
    assert "verdict/failures/math" not in first  # none in the groups that the step learned from


def test_a_step_without_any_verdict_ends_the_run(tmp_path: Path, failing: Any) -> None:
    failing(lambda batch, place: batch == 2)
    with pytest.raises(NoVerdictError, match=r"only 0 groups of the step have verdicts of math \(on_failure: drop"):
        run(tmp_path, "drop_group")
    assert len(metrics(events(tmp_path))) == 1


def test_stop_ends_the_run_with_reason_and_checkpoint(tmp_path: Path, failing: Any) -> None:
    """The step that failed is taken again: the checkpoint's place in the data is the one before it."""
    failing(lambda batch, place: (batch, place) == (3, 1))
    with pytest.raises(NoVerdictError, match=rf"on_failure is stop \({WHY}\)"):
        run(tmp_path, "stop")
    (saved,) = [event for event in events(tmp_path) if event["type"] == "checkpoint"]
    state = read_state(Path(saved["path"]))
    assert (state.step, state.order) == (2, {"position": 4, "waiting": []})


def test_a_run_continues_from_the_step_that_failed(tmp_path: Path, failing: Any) -> None:
    failing(lambda batch, place: (batch, place) == (3, 1))
    with pytest.raises(NoVerdictError):
        run(tmp_path, "stop")
    failing(lambda batch, place: False)
    assert [event["step"] for event in run(tmp_path, "stop") if event["type"] == "metrics"] == [1, 2, 3]


def test_validation_stops_too(tmp_path: Path, failing: Any) -> None:
    failing(lambda batch, place: (batch, place) == (2, 0))
    validation = {"data": {"builtin": "digits", "split": "validation", "rows": 2}, "samples": 2, "every_steps": 1}
    with pytest.raises(NoVerdictError, match="on_failure is stop"):
        run(tmp_path, "stop", validation=validation)
    (saved,) = [event for event in events(tmp_path) if event["type"] == "checkpoint"]
    assert read_state(Path(saved["path"])).step == 1


def test_a_group_without_all_verdicts_has_no_pass_ratio(tmp_path: Path, failing: Any) -> None:
    failing(lambda batch, place: place == 0)
    found = run(tmp_path, "zero", curriculum="measured", steps=1)
    (saved,) = [event for event in found if event["type"] == "checkpoint"]
    order = read_state(Path(saved["path"])).order
    assert order is not None
    assert list(order["measured"].values()) == [0.5]  # of the second group
