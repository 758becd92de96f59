"""The real trainer, started from one that waited."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.training import config
from tests.support.waiting import LIMIT_SECONDS

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
NOT_RUN = ("perf/", "memory/")  # metrics of the machine

# The first call that asks CUDA for its devices fixes which ones this process will ever see.
NO_CUDA = """
import sys
import torch
asked = []
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))
import calibrl_core.preload
print(asked, torch.cuda.is_initialized(), "torchao" in sys.modules)
"""


def run(command: list[str], line: str | None = None) -> str:
    found = subprocess.run(
        command, input=line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def reported(run_dir: Path) -> Any:
    """Return all events of a run without times and paths."""
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    for event in events:
        del event["ts"]
        event.pop("measured_at", None)
        if event["type"] == "metrics":
            event["values"] = {k: v for k, v in event["values"].items() if not k.startswith(NOT_RUN)}
    return json.loads(json.dumps(events).replace(str(run_dir), "DIR"))


@pytest.mark.slow
def test_a_run_is_bit_for_bit_the_one_of_a_cold_start(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config(steps=2).model_dump_json())
    cold, quick = tmp_path / "cold", tmp_path / "quick"
    arguments = [str(tmp_path / "config.json"), "--run-dir"]
    run([sys.executable, "-m", "calibrl_core.train", *arguments, str(cold)])
    job = {"module": "calibrl_core.train", "arguments": [*arguments, str(quick)], "environment": {}}
    line = json.dumps({**job, "log": str(tmp_path / "log.txt"), "directory": str(tmp_path)})
    assert run([sys.executable, "-m", "calibrl_core.run.standby", "calibrl_core.preload"], line) == "ready\n"
    assert reported(quick) == reported(cold)
    assert [event["type"] for event in reported(quick)].count("metrics") == 2
    assert "step 2" in (tmp_path / "log.txt").read_text()
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (folder / "checkpoints" / "step-000002" / name for folder in (cold, quick))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_no_import_asks_for_gpus() -> None:
    assert run([sys.executable, "-c", NO_CUDA]) == "[] False False\n"
