"""`calibrl trust` and `calibrl judge` over real HTTP."""

import json
from typing import Any

from typer.testing import CliRunner

from calibrl import cli

from .conftest import JOB_ID, JOB_PATH, Service, calibrl, fault, job, problem

RATE = {"value": 0.25, "low": 0.07, "high": 0.59, "count": 8}
VERDICT: dict[str, Any] = {
    "sample_id": 7,
    "step": 50,
    "prompt_id": "row-3",
    "completion": 2,
    "user": "ann",
    "right": False,
    "passed": True,
    "picked": "random",
    "created_at": "2026-11-30T03:00:00Z",
}
TRUST: dict[str, Any] = {
    "job_id": str(JOB_ID),
    "completions": 16,
    "accuracy": 0.5,
    "verdicts": 8,
    "false_passes": RATE,
    "false_failures": None,
    "corrected": None,
    "disagreements": [VERDICT],
}
NEXT = {
    "sample_id": 7,
    "step": 50,
    "prompt_id": "row-3",
    "completion": 2,
    "prompt": "1 + 1?",
    "answer": "2",
    "text": "3",
}


def test_error_rates_are_shown_with_their_intervals(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/trust", TRUST)
    shown = calibrl("trust", str(JOB_ID)).stdout
    assert "50.0% of 16 stored completions" in shown
    assert "25.0% [7.0%, 59.0%] of 8 verdicts" in shown
    assert "not known: judge random completions" in shown
    assert shown.splitlines()[-1].split() == ["50", "row-3", "7", "2", "right", "wrong", "ann"]
    assert json.loads(calibrl("trust", str(JOB_ID), "--json").stdout)["verdicts"] == 8


def test_random_completions_are_judged_one_by_one(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/verdicts/next", NEXT)
    path = f"{JOB_PATH}/samples/7/completions/2/verdict"
    service.on("PUT", path, VERDICT)
    service.on("GET", f"{JOB_PATH}/trust", TRUST)
    result = CliRunner().invoke(cli.app, ["judge", str(JOB_ID), "--count", "2"], input="wrong\nskip\n")
    assert result.exit_code == 0
    assert result.stdout.count("Reference answer") == 2
    sent = [request.body for request in service.requests if request.method == "PUT"]
    assert sent == [{"right": False, "picked": "random"}]
    service.on("GET", f"{JOB_PATH}/verdicts/next", problem(409, "Conflict", detail="Job 1 has no stored completion."))
    assert "no stored completion" in fault(calibrl("judge", str(JOB_ID)), 1)
