"""The command of a job of several processes, run for real: two on the CPU, and two such jobs at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl_core.config import TrainConfig
from tests.support import ROOT
from tests.support.processes import processes_with
from tests.support.training import of_type
from tests.support.waiting import LIMIT_SECONDS, eventually
from worker import multi_gpu

CONFIG = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 4},
    "algorithm": {"type": "calibrl", "mini_batches": 1},
    "rollout": {"group_size": 2, "max_completion_tokens": 6},
    "prompts_per_step": 2,
    "steps": 3,
    "checkpoints": {"every_steps": 3},
}
# What people who use accelerate themselves leave in their home; it must not matter here.
AT_HOME = {"distributed_type": "DEEPSPEED", "num_machines": 2, "machine_rank": 1, "gpu_ids": "0", "num_processes": 8}


@contextmanager
def started(folder: Path, module: str = "calibrl_core.train", **changes: Any) -> Iterator[Process]:
    """Two processes that train into `folder/run`; what is left of them at the end is killed."""
    home = folder / "home" / "accelerate"
    home.mkdir(parents=True)
    (home / "default_config.yaml").write_text(yaml.safe_dump(AT_HOME | {"compute_environment": "LOCAL_MACHINE"}))
    (folder / "config.json").write_text(TrainConfig.model_validate(CONFIG | changes).model_dump_json())
    arguments = [str(folder / "config.json"), "--run-dir", str(folder / "run")]
    command = multi_gpu.command(module, arguments, 2)
    environment = {**os.environ, "HF_HOME": str(home.parent), "PYTHONPATH": str(ROOT)}
    environment |= multi_gpu.environment(LIMIT_SECONDS)
    process = children.start(command, log=folder / "log.txt", env=environment, cwd=ROOT)
    try:
        yield process
    finally:
        children.kill_group(process)
        process.wait(LIMIT_SECONDS)


def trainers(folder: Path, launcher: Process) -> list[int]:
    return [pid for pid in processes_with(folder) if pid != launcher.pid]


@pytest.mark.slow
def test_two_jobs_run_side_by_side_and_the_one_that_is_asked_to_stop_does(tmp_path: Path) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    with started(short) as first, started(long, steps=100_000) as second:
        assert first.wait(LIMIT_SECONDS) == 0, (short / "log.txt").read_text()
        eventually(lambda: of_type(long / "run", "metrics"))
        children.ask(second, signal.SIGTERM)
        status = second.wait(LIMIT_SECONDS)
    assert [event["step"] for event in of_type(short / "run", "metrics")] == [1, 2, 3]
    assert [event["status"] for event in of_type(short / "run", "finish")] == ["succeeded"]
    assert len(of_type(short / "run", "start")) == 1
    (finish,) = of_type(long / "run", "finish")
    steps = [event["step"] for event in of_type(long / "run", "metrics")]
    assert (finish["status"], steps) == ("stopped", list(range(1, finish["step"] + 1)))
    assert status == 1  # the launcher's: it counts a stop signal as a failure
    assert processes_with(tmp_path) == []


@pytest.mark.slow
def test_trainers_die_with_a_launcher_that_is_killed_while_they_import(tmp_path: Path) -> None:
    with started(tmp_path, "tests.process.calibrl_core.run_importing") as process:
        eventually(lambda: len(trainers(tmp_path, process)) == 2)
        children.kill_group(process)
        eventually(lambda: trainers(tmp_path, process) == [])
