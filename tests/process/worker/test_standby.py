"""The waiting trainer of a slot, with modules that are imported at once."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibrl.processes import children
from calibrl.processes.children import Process
from jobs.settings import Settings
from tests.support import ROOT
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually
from worker import gpus
from worker.standby import Standby

# Properties that a process reports of itself; they must not depend on how it was started.
TELLING = """
import json, os, signal, sys, time

def main():
    report = {
        "arguments": sys.argv[1:], "program": os.path.basename(sys.argv[0]), "environment": dict(os.environ),
        "stdin": sys.stdin.read(), "folder": os.getcwd(), "leads": os.getsid(0) == os.getpid(),
        "signals": [str(signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)],
        "open": sorted(os.listdir("/proc/self/fd")), "parent": os.getppid(),
    }
    print(json.dumps(report), flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    sys.exit(3)

if __name__ == "__main__":
    main()
"""
BROKEN = "raise KeyError('nothing can import this')"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of children that import the test's package."""
    package = tmp_path / "report"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(TELLING)
    (package / "evaluate.py").write_text(BROKEN)
    (package / "preload.py").write_text("import report.train, report.evaluate")
    return {**os.environ, **gpus.visible([]), "PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def standby(tmp_path: Path, environment: dict[str, str]) -> Iterator[Standby]:
    made = Standby(Settings(data_dir=tmp_path / "data", trainer="report"), environment)
    yield made
    made.close()
    assert waiting(tmp_path) == []


def waiting(tmp_path: Path) -> list[int]:
    """Pids of all that were started for a quick start."""
    return [pid for pid in processes_with(tmp_path) if b"calibrl_core.run.standby" in cmdline(pid)]


def waiting_pid(tmp_path: Path) -> int:
    """Return the pid of the waiting process once it is ready: during its exec it cannot be identified."""
    ready(tmp_path)
    (pid,) = waiting(tmp_path)
    return pid


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def ready(tmp_path: Path) -> None:
    eventually(lambda: (tmp_path / "data" / "standby.log").read_text() == "ready\n")


def run(
    standby: Standby, tmp_path: Path, env: dict[str, str], module: str = "report.train"
) -> tuple[Process, list[str]]:
    """A job's process and its log, once it has ended."""
    log = tmp_path / "log.txt"
    process = standby.start(module, ["a b", "--run-dir", "ü"], log=log, env=env)
    process.wait(LIMIT_SECONDS)
    lines = log.read_text().splitlines()
    log.unlink()
    return process, lines


def test_a_waiting_trainer_runs_like_a_cold_start(
    tmp_path: Path, environment: dict[str, str], standby: Standby
) -> None:
    env = environment | gpus.visible([1, 2])
    cold, expected = run(standby, tmp_path, env)
    standby.prepare()
    pid = waiting_pid(tmp_path)
    quick, found = run(standby, tmp_path, env)
    assert (quick.pid, quick.returncode, cold.returncode) == (pid, 3, 3)
    assert found[1:] == expected[1:] == ["to stderr"]
    report, cold_report = json.loads(found[0]), json.loads(expected[0])
    assert report.pop("folder") == str(tmp_path)  # where its log is: the command line can't say whose trainer it is
    del cold_report["folder"]
    assert report == cold_report
    report = json.loads(found[0])
    assert (report["environment"]["CUDA_VISIBLE_DEVICES"], report["arguments"]) == ("1,2", ["a b", "--run-dir", "ü"])
    assert (report["stdin"], report["leads"], report["parent"]) == ("", True, os.getpid())


def test_the_log_is_appended_to(tmp_path: Path, environment: dict[str, str], standby: Standby) -> None:
    (tmp_path / "log.txt").write_text("of an attempt before\n")
    standby.prepare()
    _, lines = run(standby, tmp_path, environment)
    assert (lines[0], lines[2]) == ("of an attempt before", "to stderr")


def test_a_trainer_that_still_imports_is_given_the_job_too(
    tmp_path: Path, environment: dict[str, str], standby: Standby
) -> None:
    os.mkfifo(tmp_path / "go_on")
    (tmp_path / "report" / "__init__.py").write_text(f"open({str(tmp_path / 'go_on')!r}).read()")
    standby.prepare()
    (pid,) = eventually(lambda: waiting(tmp_path))
    log = tmp_path / "log.txt"
    process = standby.start("report.train", [], log=log, env=environment)
    (tmp_path / "go_on").write_text("")  # which waits for the reader
    process.wait(LIMIT_SECONDS)
    assert (process.pid, log.read_text().splitlines()[1]) == (pid, "to stderr")


def test_one_trainer_waits_and_another_starts_once_it_has_a_job(
    tmp_path: Path, environment: dict[str, str], standby: Standby
) -> None:
    standby.prepare()
    first = waiting_pid(tmp_path)
    standby.prepare()
    assert waiting(tmp_path) == [first]
    process, _ = run(standby, tmp_path, environment)
    assert (process.pid, waiting(tmp_path)) == (first, [])
    standby.prepare()
    eventually(lambda: len(waiting(tmp_path)) == 1)


def test_a_job_starts_cold_where_the_waiting_trainer_has_died(
    tmp_path: Path, environment: dict[str, str], standby: Standby
) -> None:
    standby.prepare()
    pid = waiting_pid(tmp_path)
    os.kill(pid, 9)
    eventually(lambda: waiting(tmp_path) == [])
    process, lines = run(standby, tmp_path, environment)
    assert process.pid != pid and lines[1] == "to stderr"
    standby.prepare()
    eventually(lambda: len(waiting(tmp_path)) == 1)


def test_a_job_with_a_late_environment_starts_cold(
    tmp_path: Path, environment: dict[str, str], standby: Standby
) -> None:
    standby.prepare()
    first = waiting_pid(tmp_path)
    _, lines = run(standby, tmp_path, environment | {"HF_HOME": "/models"})
    assert json.loads(lines[0])["environment"]["HF_HOME"] == "/models"
    assert waiting(tmp_path) == [first]  # it goes on waiting for one that it fits


def test_a_failed_import_is_in_the_jobs_log(tmp_path: Path, environment: dict[str, str], standby: Standby) -> None:
    standby.prepare()
    ready(tmp_path)
    process, lines = run(standby, tmp_path, environment, "report.evaluate")
    assert (process.returncode, lines[-1]) == (1, "KeyError: 'nothing can import this'")


def test_no_trainer_waits_where_quick_starts_are_off(tmp_path: Path, environment: dict[str, str]) -> None:
    off = Standby(Settings(data_dir=tmp_path, trainer="report", quick_starts=False), environment)
    off.prepare()
    assert waiting(tmp_path) == []
    assert run(off, tmp_path, environment)[1][1] == "to stderr"
    off.close()


def test_it_ends_with_the_end_of_its_input(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "calibrl_core.run.standby", "report.preload"]
    process = children.start(command, log=tmp_path / "log.txt", env=environment)
    assert children.ended(process, LIMIT_SECONDS)
    assert (process.wait(), (tmp_path / "log.txt").read_text()) == (0, "ready\n")
