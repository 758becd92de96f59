"""The protocol of every trainer, so that the fake one can replace the real one: events, checkpoints, signals, exits."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.report import EVENT_FILE
from tests.support import ROOT
from tests.support.processes import has_stopped
from tests.support.waiting import LIMIT_SECONDS, eventually
from worker.events import CheckpointLine, FinishLine, HistogramLine, MetricsLine, RunEvent, StartLine, run_event_adapter

pytestmark = pytest.mark.integration

STEPS = 24
EVERY = 5
CONFIG: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm", "seed": 3},
    "data": {"builtin": "digits", "split": "train", "rows": 40},
    "algorithm": {"type": "grpo", "mini_batches": 1},
    "rollout": {"group_size": 2, "max_completion_tokens": 6},
    "optimizer": {"lr": 1e-3},
    "prompts_per_step": 2,
    "steps": STEPS,
    "checkpoints": {"every_steps": EVERY, "keep_last": 2},
}


class Runs:
    """Starts one trainer in its own folders."""

    def __init__(self, module: str, folder: Path) -> None:
        self._module, self._folder = module, folder

    def folder(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(parents=True, exist_ok=True)
        pace = {"prompts_per_step": 20} if self._module == "tests.support.fake_trainer" else {}  # its milliseconds
        (path / "config.json").write_text(json.dumps(CONFIG | pace))
        return path

    @contextmanager
    def process(self, run_dir: Path, stop_after: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run the trainer; with `stop_after`, it stops itself (SIGSTOP) once it has reported that step."""
        trainer = [f"{self._module}.train", str(run_dir / "config.json"), "--run-dir", str(run_dir)]
        stopping = [] if stop_after is None else ["tests.support.stopping", str(stop_after)]
        command = [sys.executable, "-m", *stopping, *trainer]
        with (
            (run_dir / "log.txt").open("ab") as log,
            subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as run,
        ):
            try:
                yield run
            finally:
                run.kill()

    def to_the_end(self, run_dir: Path) -> None:
        with self.process(run_dir) as run:
            assert run.wait(LIMIT_SECONDS) == 0, (run_dir / "log.txt").read_text()


@pytest.fixture(
    scope="module", params=["tests.support.fake_trainer", pytest.param("calibrl_core", marks=pytest.mark.slow)]
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(request.param, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> Path:
    """A run from its first step to its last."""
    run_dir = runs.folder("undisturbed")
    runs.to_the_end(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def stopped(runs: Runs) -> Path:
    """Return the folder of a run that got SIGTERM between two checkpoints, ..."""
    run_dir = runs.folder("disturbed")
    with runs.process(run_dir, stop_after=EVERY + 1) as run:
        eventually(lambda: has_stopped(run.pid))
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGCONT)
        assert run.wait(LIMIT_SECONDS) == 0
    return run_dir


@pytest.fixture(scope="module")
def resumed(runs: Runs, stopped: Path) -> tuple[Path, int]:
    """... went on, was killed, and went on to its end; and the step it had stopped at."""
    done = finish(stopped).step
    with runs.process(stopped, stop_after=done + 2) as run:
        eventually(lambda: has_stopped(run.pid))
        run.kill()
        run.wait(LIMIT_SECONDS)
    runs.to_the_end(stopped)
    return stopped, done


def lines(run_dir: Path) -> list[RunEvent]:
    """The events; a line that is none fails the test."""
    path = run_dir / EVENT_FILE
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return [run_event_adapter.validate_json(line) for line in whole]


def finish(run_dir: Path) -> FinishLine:
    event = lines(run_dir)[-1]
    assert isinstance(event, FinishLine)
    return event


def whole_checkpoints(run_dir: Path) -> list[int]:
    """Steps of what a trainer would resume from: a name that says the step, and nothing half-written under it."""
    found = [path for path in (run_dir / "checkpoints").iterdir() if path.name.startswith("step-")]
    return sorted(int(path.name.removeprefix("step-")) for path in found if path.name[-1].isdigit())


def rows(events: list[RunEvent]) -> dict[Any, Any]:
    """The metrics and histograms that are left once each `start` has put the run back to its step, without times."""
    kept: dict[Any, Any] = {}
    for event in events:
        match event:
            case StartLine():
                kept = {key: value for key, value in kept.items() if key[0] <= event.step}
            case MetricsLine():
                kept[event.step, ""] = {k: v for k, v in event.values.items() if not k.startswith("perf/")}
            case HistogramLine():
                kept[event.step, event.name] = (event.edges, event.counts)
    return kept


def test_a_whole_run_starts_at_0_reports_each_step_once_and_finishes(undisturbed: Path) -> None:
    events = lines(undisturbed)
    start, end = events[0], finish(undisturbed)
    assert isinstance(start, StartLine) and (start.step, start.steps_total) == (0, STEPS)
    assert [event.step for event in events if isinstance(event, MetricsLine)] == list(range(1, STEPS + 1))
    assert (end.status, end.step, end.reason) == ("succeeded", STEPS, None)


def test_the_checkpoints_reported_of_and_not_removed_are_those_on_disk(undisturbed: Path) -> None:
    recorded: set[str] = set()
    for event in lines(undisturbed):
        if isinstance(event, CheckpointLine):
            assert Path(event.path).name == f"step-{event.step:06d}"
            recorded = (recorded | {event.path}) - set(event.removed)
    assert recorded == {
        str(undisturbed / "checkpoints" / f"step-{step:06d}") for step in whole_checkpoints(undisturbed)
    }
    assert {20, 24} <= set(whole_checkpoints(undisturbed))


def test_term_saves_a_checkpoint_and_exits_0(resumed: tuple[Path, int]) -> None:
    folder, done = resumed
    events = lines(folder)
    ends = [event for event in events if isinstance(event, FinishLine)]
    assert [(event.status, event.step) for event in ends] == [("stopped", done), ("succeeded", STEPS)]
    before = events[: events.index(ends[0])]
    assert EVERY < done < STEPS
    assert [event.step for event in before if isinstance(event, CheckpointLine)][-1] == done
    assert max(event.step for event in before if isinstance(event, MetricsLine)) == done


def test_each_start_resumes_from_the_newest_checkpoint(resumed: tuple[Path, int]) -> None:
    """The second one from the one that TERM left, the third one from the newest before the kill."""
    folder, done = resumed
    starts, saved = [], 0
    for event in lines(folder):
        if isinstance(event, StartLine):
            starts.append((event.step, saved))
        elif isinstance(event, CheckpointLine):
            saved = max(saved, event.step)
    assert [step for step, _ in starts] == [newest for _, newest in starts]
    assert [step for step, _ in starts][:2] == [0, done] and len(starts) == 3


def test_a_disturbed_run_reports_the_same_as_an_undisturbed_one(resumed: tuple[Path, int], undisturbed: Path) -> None:
    assert rows(lines(resumed[0])) == rows(lines(undisturbed))
