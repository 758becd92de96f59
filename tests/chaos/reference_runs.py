"""Reference runs without faults: the same config, run alone, once per distinct config."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.support.waiting import LIMIT_SECONDS

Values = dict[int, dict[str, Any]]


@dataclass
class Reports:
    """A run's metrics (without perf/*) and histograms by step and name, and the number of sampled groups per step."""

    metrics: Values = field(default_factory=dict)
    histograms: dict[tuple[int, str], tuple[list[float], list[int]]] = field(default_factory=dict)
    samples: Counter[int] = field(default_factory=Counter)


class ReferenceRuns:
    """Cache of reference runs by config."""

    def __init__(self, folder: Path, trainer: str) -> None:
        self._folder, self._trainer = folder, trainer
        self._known: dict[str, Reports] = {}

    def of(self, config_file: Path) -> Reports:
        """Return the reports of a run with this config."""
        config = json.loads(config_file.read_text())
        if self._trainer == "tests.support.fake_trainer":
            config["prompts_per_step"] = 1  # milliseconds per step
        text = json.dumps(config, sort_keys=True)
        if text not in self._known:
            self._known[text] = self._run(text, self._folder / str(len(self._known)) / "attempt-1")
        return self._known[text]

    def _run(self, text: str, run_dir: Path) -> Reports:
        run_dir.mkdir(parents=True)
        (run_dir / "config.json").write_text(text)
        command: list[str | Path] = [sys.executable, "-m", f"{self._trainer}.train"]
        command += [run_dir / "config.json", "--run-dir", run_dir]
        subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT_SECONDS, capture_output=True)
        reports = Reports()
        for line in (run_dir / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            match event["type"]:
                case "metrics":
                    reports.metrics[event["step"]] = comparable(event["values"])
                case "histogram":
                    reports.histograms[event["step"], event["name"]] = (event["edges"], event["counts"])
                case "sample":
                    reports.samples[event["step"]] += 1
        return reports


def comparable(values: dict[str, Any]) -> dict[str, Any]:
    """Return a step's values without those that measure time and memory."""
    return {name: value for name, value in values.items() if not name.startswith("perf/")}
