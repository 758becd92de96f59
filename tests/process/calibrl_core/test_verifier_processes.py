"""The worker processes of verifiers: verifiers that fail, die or send wrong lines, signals, and a killed trainer."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.verifiers import MathReward, pool
from calibrl_core.verifiers.pool import WorkerPool
from calibrl_core.verifiers.scorer import Scorer
from tests.support.verifier_package import plugin, score_of
from tests.support.waiting import LIMIT_SECONDS


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "limit", "failure"),
    [
        ("exits", 60, "plugin-exits: its process died (exit status 3)"),
        ("segfaults", 60, "plugin-segfaults: its process died (exit status -11)"),
        ("hangs", 0.2, "plugin-hangs: no verdict within 0.2 seconds"),
        ("backtracks", 0.2, "plugin-backtracks: no verdict within 0.2 seconds"),
        ("fills_memory", 60, "plugin-fills_memory: MemoryError: "),
        ("raises", 60, "plugin-raises: LookupError: exit" + "a" * 100 + "!"),
        ("says_nan", 60, "plugin-says_nan: ValueError: returned nan; it must return a number from 0 to 1"),
    ],
)
def test_a_verifier_that_fails_scores_0_and_says_why(name: str, limit: float, failure: Any) -> None:
    with Scorer([plugin(name, time_limit_seconds=limit), plugin("length", weight=2.0)], workers=1) as scorer:
        found = score_of(scorer, "exit" + "a" * 100 + "!")
    assert (found.failure, found.failed) == (failure, (f"plugin-{name}",))
    assert found.by_verifier == {f"plugin-{name}": 0.0, "plugin-length": 1.0}
    assert (found.reward, found.passed) == (2.0, False)


@pytest.mark.usefixtures("installed")
def test_a_worker_that_dies_loses_no_other_verdict() -> None:
    with Scorer([plugin("exits")], workers=2) as scorer:
        scores = scorer.score_all([f"{n} exit" if n % 3 == 0 else f"{n}" for n in range(9)], [""] * 9)
    assert [score.passed for score in scores] == [n % 3 > 0 for n in range(9)]
    assert sum(score.failure is not None for score in scores) == 3


@pytest.mark.usefixtures("installed")
def test_a_child_that_a_verifier_forks_gives_no_verdict() -> None:
    wanted = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    with Scorer([plugin("forks")], workers=1) as scorer:
        scores = scorer.score_all([str(value) for value in wanted], [""] * 8)
    assert [score.reward for score in scores] == wanted
    assert [score.failure for score in scores] == [None] * 8


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "sent",
    [
        b"no JSON\n",
        b"[1, [0.5], null]\n",  # the answer to the question before
        b"[2, [0.5], null]\n[2, [0.5], null]\n",
        b"[2, [7], null]\n",
        b"[2, [NaN], null]\n",
        b"[2, [0.5], 3]\n",
        b"[2, [0.5, 0.5], null]\n",
        b"[2, [], null]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * (pool.LONGEST_ANSWER + 1),  # no line at all
    ],
)
def test_an_invalid_line_ends_only_its_question_and_its_worker(sent: Any) -> None:
    with Scorer([plugin("sends")], workers=1) as scorer:
        scores = scorer.score_all(["a", "send", "b"], [repr(sent)] * 3)
    assert [score.passed for score in scores] == [True, False, True]
    why = "plugin-sends: its worker process sent a line that does not answer this request"
    assert [score.failure for score in scores] == [None, why, None]


@pytest.mark.usefixtures("installed")
def test_a_verifier_of_batches_judges_several_completions_per_call() -> None:
    with Scorer([plugin("in_batches", batch_size=4), plugin("length")], workers=1) as scorer:
        scores = scorer.score_all([f"{number}" for number in range(9)], [""] * 9)
        assert [score.by_verifier["plugin-in_batches"] for score in scores] == [0.4] * 8 + [0.1]
        assert {score.by_verifier["plugin-length"] for score in scores} == {0.1}
        failed = scorer.score_all(["x", "short", "y"], [""] * 3)
    assert {score.failure for score in failed} == {"plugin-in_batches: ValueError: returned 2 scores for 3 completions"}


@pytest.mark.usefixtures("installed")
def test_the_children_of_a_verifier_end_with_its_worker(tmp_path: Path) -> None:
    with Scorer([plugin("starts_a_child")], workers=1) as scorer:
        assert score_of(scorer, "", str(tmp_path / "pids")).passed
        child = os.pidfd_open(int((tmp_path / "pids").read_text()))
    assert_ends(child)


@pytest.mark.usefixtures("installed")
def test_a_batch_that_always_fails_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MIN_LOSSES", 1)
    with Scorer([plugin("exits")], workers=1) as scorer:
        failures = [score.failure for score in scorer.score_all([f"exit {n}" for n in range(9)], [""] * 9)]
        assert failures[1] == "plugin-exits: its process died (exit status 3)"
        assert set(failures[2:]) == {"not judged: 2 others had failed before"}
        assert score_of(scorer, "fine").passed


@pytest.mark.usefixtures("installed")
def test_time_without_a_cpu_does_not_count_against_a_verifier() -> None:
    """The verifier's 0.2 s take over a second beside a process with ten times its share of the same CPU."""
    cpu = min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as busy:
        os.sched_setaffinity(busy.pid, {cpu})
        with Scorer([plugin("is_starved", time_limit_seconds=0.6)], workers=1) as scorer:
            found = score_of(scorer, "0.2", str(cpu))
        busy.kill()
    assert (found.passed, found.failure) == (True, None)


@pytest.mark.usefixtures("installed")
def test_a_worker_killed_between_two_batches_loses_nothing() -> None:
    with Scorer([plugin("length")], workers=1) as scorer:
        score_of(scorer, "a")
        (worker,) = scorer._pool._workers
        os.kill(worker._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker._process.pid, os.WEXITED | os.WNOWAIT)
        assert score_of(scorer, "a" * 10).passed
        scorer.close()
        assert score_of(scorer, "a" * 10).passed  # and after closing, too


def test_processes_that_never_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with WorkerPool([MathReward()], 1) as workers, pytest.raises(RuntimeError, match="end before they can judge"):
        workers.judge([pool.VerdictRequest(0, "x", "y")])


TRAINER = """
    import os, signal, sys
    from calibrl_core.verifiers.scorer import Scorer
    from calibrl_core.verifiers import PluginReward

    received = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: received.append(number))
    with Scorer([PluginReward(name=sys.argv[1], time_limit_seconds=60)], workers=2) as scorer:
        scores = scorer.score_all(["a", "b"], sys.argv[2:] * 2)
    print([score.passed for score in scores], sorted(set(received)))
"""


def trainer(site: Path, *arguments: Any) -> Any:
    """Start a trainer in a new session, as the supervisor does."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINER), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_verifier_that_signals_its_group_does_not_reach_the_trainer(installed: Path) -> None:
    with trainer(installed, "signals_its_group", "") as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert output.strip() == "[True, True] []"


def test_a_signal_to_the_trainers_group_lets_the_step_finish(installed: Path) -> None:
    with trainer(installed, "signals_the_trainers_group", "") as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert output.strip() == f"[True, True] [{signal.SIGINT:d}, {signal.SIGTERM:d}]"


def assert_ends(process: Any) -> None:
    """`process`: a pidfd."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    assert poll.poll(30_000), "a process outlived what started it"
    os.close(process)


def test_a_killed_trainer_leaves_no_worker(installed: Path, tmp_path: Path) -> None:
    """The workers are in the midst of a verdict, where only the kernel can end them."""
    (installed / "hang_and_tell.py").write_text(
        "import os, pathlib, time\n"
        "def verify(completion, truth):\n"
        "    os.write(os.open(truth, os.O_WRONLY), f'{os.getpid()}\\n'.encode())\n"
        "    while True: pass\n"
    )
    (installed / "org_verifiers-1.2.dist-info" / "entry_points.txt").write_text(
        "[calibrl.verifiers]\nhang = hang_and_tell:verify\n"
    )
    os.mkfifo(tmp_path / "pids")
    with trainer(installed, "hang", str(tmp_path / "pids")) as process:
        with (tmp_path / "pids").open() as pids:
            watched = [os.pidfd_open(int(pids.readline())) for _ in range(2)]
        process.kill()
        for worker in watched:
            assert_ends(worker)


def test_a_killed_trainer_leaves_no_child_of_a_verifier(installed: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pids")
    with trainer(installed, "starts_a_child", str(tmp_path / "pids")) as process:
        with (tmp_path / "pids").open() as pids:
            child = os.pidfd_open(int(pids.readline()))
        process.kill()
        assert_ends(child)
