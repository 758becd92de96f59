"""An audit of experts on the whole stack with the real trainer: a warm-up, the audit of its policy, the kept rows."""

import json
from pathlib import Path

import pytest

from calibrl.client import Client
from calibrl.commands import audit_rows, demo
from tests.e2e.conftest import ended

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RIGHT = "<think>The left digit is 3, the right one 4: 7.</think><answer>7</answer>"
WRONG = "<think>The left digit is 3, the right one 4: 8.</think><answer>8</answer>"


def test_an_audit_runs_through_the_queue_and_its_rows_are_written(training_client: Client, tmp_path: Path) -> None:
    warmup = training_client.submit(demo.warmup_spec(seed=0, stack="test") | {"steps": 4, "prompts_per_step": 4})
    rows = [{"question": "What is 3 + 4?", "answer": "7", "expert": expert} for expert in (RIGHT, WRONG, None, RIGHT)]
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    dataset = training_client.upload(file)
    spec = {
        "kind": "audit",
        "name": "sums-audit",
        "model": {"from_job": str(warmup.id), "checkpoint": "last"},
        "data": {"dataset": str(dataset.id)},
        "rollout": {"group_size": 2, "max_completion_tokens": 40},
        "max_nll": 50.0,
    }
    submitted = training_client.submit(spec)
    assert submitted.depends_on == [warmup.id]
    job = ended(training_client, submitted)
    assert (job.kind, job.step, job.steps_total) == ("audit", 1, 1)
    found = training_client.expert_audit(job.id)
    assert (found.rows, found.without_expert) == (3, 1)
    assert found.verdicts == {"use": 2, "rewrite": 0, "drop": 1}
    assert (found.worst[0].row, found.worst[0].reasons) == (2, ["the reward math refuses the expert"])
    assert sum(found.gap_histogram.counts) > 0
    written = audit_rows.write(training_client, job, tmp_path / "kept.jsonl")
    assert (written.rows, written.replaced) == (2, 0)
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert kept == [rows[0], rows[3]]


def test_an_audit_of_data_without_experts_is_refused_at_submission(training_client: Client, tmp_path: Path) -> None:
    file = tmp_path / "bare.jsonl"
    file.write_text('{"question": "1+1?", "answer": "2"}\n')
    dataset = training_client.upload(file)
    spec = {"kind": "audit", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": {"dataset": str(dataset.id)}}
    with pytest.raises(Exception, match="the job needs experts"):
        training_client.submit(spec)
