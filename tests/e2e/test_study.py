"""A miniature study on the whole stack with the real trainer: warm-up, two arms, two seeds, and its report."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from calibrl import cli
from calibrl.client import Client
from calibrl.commands import studies
from calibrl.stack.local import LocalStack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STUDY = {
    "name": "mini",
    "base": {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 4}, "every_steps": 1, "samples": 2},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "rollout": {"group_size": 2, "max_completion_tokens": 16},
        "prompts_per_step": 2,
        "steps": 3,
    },
    "warm_up": {
        "changes": {"algorithm": {"type": "sft"}, "data": {"builtin": "digits", "experts": "terse"}, "steps": 2}
    },
    "arms": {"grpo": {}, "calibrl": {"algorithm": {"type": "calibrl", "mini_batches": 1}}},
    "seeds": [0, 1],
    "evaluation": {
        "data": [{"builtin": "digits", "split": "test", "rows": 4}],
        "rollout": {"samples": 2, "max_completion_tokens": 16},
    },
    "baseline": "grpo",
}


@pytest.fixture(scope="module")
def folder(training_stack: LocalStack) -> Path:
    """Return the data folder of a running stack."""
    return training_stack.data_dir


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "POLL_SECONDS", 0.5)
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return path


def calibrl(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.app, [*arguments, "--data", str(folder)])


def test_a_study_runs_continues_and_reports(folder: Path, file: Path, tmp_path: Path) -> None:
    ran = calibrl(folder, "study", "run", str(file))
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1].startswith("mini: 9/9 jobs ended, 0 running, 0 waiting, 0 failed")
    shown = json.loads(calibrl(folder, "study", "status", "mini", "--json").stdout)
    assert (shown["status"], shown["progress"]["succeeded"]) == ("succeeded", 9)
    again = calibrl(folder, "study", "run", str(file))
    assert again.exit_code == 0
    with Client(data_dir=folder) as client:
        jobs = client.jobs(labels={"study": "mini"}).data
    assert len(jobs) == 9

    found = json.loads(calibrl(folder, "study", "report", "mini", "--json").stdout)
    assert [(arm["name"], arm["seeds"]) for arm in found["arms"]] == [("grpo", [0, 1]), ("calibrl", [0, 1])]
    (row,) = found["comparisons"]
    assert (row["split"], row["prompts"], row["seeds"]) == ("test", 4, [0, 1])
    assert row["low"] <= row["difference"] <= row["high"]
    assert [budget["amount"] for budget in found["budgets"] if budget["budget"] == "rollouts"] == [12.0]
    assert {len(run["curve"]) for run in found["runs"]} == {3}

    written = calibrl(folder, "study", "report", "mini", "--out", str(tmp_path / "report"))
    assert (written.exit_code, written.stderr) == (0, "")
    page = (tmp_path / "report" / "mini.html").read_text()
    assert all(str(job.id) in page for job in jobs)
    assert (tmp_path / "report" / "mini-curves-rollouts.svg").exists()
