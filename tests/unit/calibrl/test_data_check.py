"""`calibrl data check`: the report as text and as JSON, and the rows that it writes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibrl import extras
from calibrl.cli import app

from .conftest import calibrl, fault

ROWS = (
    '{"question": "3+4?", "answer": "7", "expert": "<think>3+4</think><answer>7</answer>"}\n'
    '{"question": "1+1?", "answer": "2", "expert": "<think>1+1</think><answer>3</answer>", "level": 2}\n'
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(ROWS)
    return path


def test_the_report_says_what_a_job_reads(file: Path) -> None:
    shown = CliRunner().invoke(app, ["data", "check", str(file)]).stdout
    for part in (
        "columns left out  level",
        "number: 2",
        "the rewards accept 1 of 2 judged",
        "1 of 2 experts fail the rewards (row 2: math with the answer '2')",
    ):
        assert part in shown


def test_json_and_kept_rows(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    result = CliRunner().invoke(app, ["data", "check", str(file), "--json", "--write", str(kept)])
    found = json.loads(result.stdout)
    assert (found["rows"], found["warnings"][0]["kind"]) == (2, "wrong_experts")
    assert kept.read_text() == ROWS.splitlines(keepends=True)[0]
    assert "exists already" in fault(calibrl("data", "check", file, "--write", kept), 2)


def test_tokens_of_a_model(file: Path) -> None:
    result = CliRunner().invoke(
        app, ["data", "check", str(file), "--json", "--model", "tiny-vlm", "--max-completion-tokens", "4"]
    )
    found = json.loads(result.stdout)
    assert found["cut_experts"] == 2 and found["prompt_tokens"]["count"] == 2


def test_a_job_gives_data_rewards_and_limits(file: Path, tmp_path: Path) -> None:
    spec = {
        "kind": "train",
        "name": "a job",
        "model": {"builtin": "tiny-vlm"},
        "data": {"path": file.name, "format": "plain", "rows": 1},
        "validation": {"data": {"path": file.name}},
        "rewards": [{"type": "exact"}],
        "algorithm": {"type": "sft"},
        "prompts": {"max_tokens": 5},
        "rollout": {"max_completion_tokens": 4},
        "steps": 1,
    }
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    result = CliRunner().invoke(app, ["data", "check", "--spec", str(tmp_path / "job.yaml"), "--json"])
    found = json.loads(result.stdout)
    assert (found["rows"], found["cut_experts"], found["overlap_prompts"], found["right_experts"]) == (1, 1, 1, 1)
    assert {"long_prompts", "long_experts"} <= {warning["kind"] for warning in found["warnings"]}
    own = ["--spec", str(tmp_path / "job.yaml"), "--rewards", "numeric", "--max-completion-tokens", "100", "--json"]
    named = json.loads(CliRunner().invoke(app, ["data", "check", str(file), *own]).stdout)
    assert (named["rows"], named["cut_experts"]) == (1, 0)


def test_a_job_of_several_files_needs_a_name(file: Path, tmp_path: Path) -> None:
    data = [{"path": str(file)}, {"path": str(file), "title": "again"}]
    spec = {"kind": "train", "name": "a job", "model": {"builtin": "tiny-vlm"}, "data": data, "steps": 1}
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    said = fault(calibrl("data", "check", "--spec", tmp_path / "job.yaml"), 2)
    assert f"name FILE: the job has 2 data files: {file}" in said
    evaluation = {"kind": "evaluate", "name": "e", "models": [{"builtin": "tiny-vlm"}], "data": [{"path": str(file)}]}
    (tmp_path / "job.yaml").write_text(json.dumps(evaluation))
    assert "is no training job" in fault(calibrl("data", "check", "--spec", tmp_path / "job.yaml"), 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--rewards", "nope"], "--rewards 'nope'"),
        (["--format", "verll"], "format: must be one of auto"),
        (["--model", "/nowhere"], "--model: "),
        (["--column", "answer"], "answer=result"),
    ],
)
def test_wrong_options_are_refused(file: Path, options: list[str], text: str) -> None:
    assert text in fault(calibrl("data", "check", file, *options), 2)


def test_a_plain_client_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert "pip install 'calibrl[trainer]'" in fault(calibrl("data", "check", file), 2)
