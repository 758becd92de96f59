"""The demo's specs and what it says of its figures; the examples of the docs."""

from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import yaml

from calibrl import demo
from jobs.schemas import job_spec_adapter

ROOT = Path(__file__).parents[3]


def submitted(spec):
    """What a client holds after a submission, as far as the demo looks."""
    filled_in = job_spec_adapter.validate_python(spec).model_dump(mode="json")
    return SimpleNamespace(id=uuid4(), spec=filled_in)


def test_only_the_evaluation_reads_test_images():
    warmup = submitted(demo.warmup_spec(seed=3))
    runs = [submitted(demo.reinforcement_spec(warmup, algorithm)) for algorithm in ("calibrl", "grpo")]
    for job in (warmup, *runs):
        assert job.spec["seed"] == 3
        assert job.spec["data"]["split"] == "train"
        assert job.spec["validation"]["data"]["split"] == "validation"
    evaluation = submitted(demo.evaluation_spec([warmup, *runs]))
    assert [model["from_job"] for model in evaluation.spec["models"]] == [str(job.id) for job in (warmup, *runs)]
    assert [source["split"] for source in evaluation.spec["data"]] == ["test", "test-noise"]


def test_the_compared_runs_differ_in_name_and_algorithm_alone():
    warmup = submitted(demo.warmup_spec(seed=0))
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
def test_the_verdict_follows_the_interval(difference, low, high, verdict):
    """The evaluation reports GRPO minus CalibRL, the later model minus the earlier."""
    row = {"split": "test", "first": 1, "second": 2, "difference": difference, "low": low, "high": high}
    row["distinguishable"] = not low <= 0 <= high
    noisy = row | {"split": "test-noise", "difference": 9.0}
    found = demo._comparison({"comparisons": [noisy, row]}, calibrl=1, grpo=2)
    assert verdict in found["verdict"]
    assert (found["difference"], found["low"], found["high"]) == (-difference, -high, -low)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_of_the_docs_are_valid(path):
    job_spec_adapter.validate_python(yaml.safe_load(path.read_text()))
