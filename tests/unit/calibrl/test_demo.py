"""The demo's specs and its figures."""

import io
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from calibrl.client import Client
from calibrl.commands import demo
from calibrl.schemas import Job, job_spec_adapter

from .conftest import JOB_ID, page
from .conftest import job as job_json

METRICS = ("accuracy", "accuracy_low", "accuracy_high", "greedy_accuracy", "pass_at_k")


def submitted(spec: Any) -> Any:
    """Return a client's job after a submission, with the fields that the demo reads."""
    filled_in = job_spec_adapter.validate_python(spec).model_dump(mode="json")
    return SimpleNamespace(id=uuid4(), spec=filled_in, labels=filled_in["labels"])


def test_only_the_evaluation_reads_test_images() -> None:
    warmup = submitted(demo.warmup_spec(seed=3, stack="test"))
    runs = [submitted(demo.reinforcement_spec(warmup, algorithm)) for algorithm in ("calibrl", "grpo")]
    for job in (warmup, *runs):
        assert job.spec["seed"] == 3
        assert job.spec["data"]["split"] == "train"
        assert job.spec["validation"]["data"]["split"] == "validation"
    evaluation = submitted(demo.evaluation_spec([warmup, *runs]))
    assert [model["from_job"] for model in evaluation.spec["models"]] == [str(job.id) for job in (warmup, *runs)]
    assert [source["split"] for source in evaluation.spec["data"]] == ["test", "test-noise"]


def test_the_compared_runs_differ_in_name_and_algorithm_alone() -> None:
    warmup = submitted(demo.warmup_spec(seed=0, stack="test"))
    one, other = (demo.reinforcement_spec(warmup, algorithm) for algorithm in ("calibrl", "grpo"))
    assert {key for key in one if one[key] != other[key]} == {"name", "labels", "algorithm"}


@pytest.mark.parametrize(
    ("difference", "low", "high", "verdict"),
    [
        (0.02, -0.01, 0.05, "not distinguishable"),
        (0.05, 0.02, 0.08, "GRPO answers more"),
        (-0.05, -0.08, -0.02, "CalibRL answers more"),
    ],
)
def test_the_verdict_follows_the_interval(difference: float, low: float, high: float, verdict: str) -> None:
    """The evaluation reports GRPO minus CalibRL, the later model minus the earlier."""
    row = {"split": "test", "first": 1, "second": 2, "difference": difference, "low": low, "high": high}
    row["distinguishable"] = not low <= 0 <= high
    noisy = row | {"split": "test-noise", "difference": 9.0}
    found = demo._comparison({"comparisons": [noisy, row]}, calibrl=1, grpo=2)
    assert verdict in found["verdict"]
    assert (found["difference"], found["low"], found["high"]) == (-difference, -high, -low)


def test_a_paused_job_is_followed_until_it_has_resumed(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "POLL_SECONDS", 0.01)
    statuses = ("running", "pausing", "paused", "paused", "queued", "running", "succeeded")
    service.on("GET", f"/v1/jobs/{JOB_ID}", *(job_json(status=status) for status in statuses))
    service.on("GET", f"/v1/jobs/{JOB_ID}/metrics", page())
    output = io.StringIO()
    stack: Any = SimpleNamespace(check=lambda: None)
    with Client() as client:
        demo._follow(client, stack, [Job.model_validate(job_json())], Console(file=output, width=200))
    shown_statuses = [line.split(": ")[1].split(",")[0] for line in output.getvalue().splitlines()]
    assert shown_statuses == ["running", "pausing", "paused", "queued", "running", "succeeded"]


def test_a_pipe_gets_a_line_per_tenth_of_the_steps(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "POLL_SECONDS", 0.001)
    steps = [job_json(step=step, steps_total=40) for step in range(0, 40, 2)]
    service.on("GET", f"/v1/jobs/{JOB_ID}", *steps, job_json(step=40, steps_total=40, status="succeeded"))
    service.on("GET", f"/v1/jobs/{JOB_ID}/metrics", page())
    output = io.StringIO()
    stack: Any = SimpleNamespace(check=lambda: None)
    with Client() as client:
        demo._follow(client, stack, [Job.model_validate(job_json())], Console(file=output, width=200))
    lines = output.getvalue().splitlines()
    assert len(lines) == 11 and all(f"step {4 * place}/40" in line for place, line in enumerate(lines))


def test_the_figures_are_those_of_the_test_images() -> None:
    jobs: dict[str, Any] = {name: SimpleNamespace(id=name) for name in ("warmup", "calibrl", "evaluation")}
    results = [
        {"model_index": index, "split": split, "metrics": dict.fromkeys(METRICS, value)}
        for index, split, value in ((0, "test", 0.4), (0, "test-noise", 0.0), (1, "test", 0.7), (1, "test-noise", 0.1))
    ]
    found = demo._summary(jobs, {"results": results, "comparisons": []})
    assert found == {
        "accuracy_before": 0.4,
        "greedy_before": 0.4,
        "pass_at_8_before": 0.4,
        "interval_before": [0.4, 0.4],
        "accuracy_after": 0.7,
        "greedy_after": 0.7,
        "pass_at_8_after": 0.7,
        "interval_after": [0.7, 0.7],
        "jobs": {"warmup": "warmup", "calibrl": "calibrl", "evaluation": "evaluation"},
    }
