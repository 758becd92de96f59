"""The command `calibrl init`: the chain of jobs that it writes is valid and fits together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from calibrl.presets.chain import chain
from calibrl.schemas import job_spec_adapter
from jobs.specs.pipelines import with_ids

from .conftest import Service, calibrl, fault, job, page


def written(path: Path) -> list[dict[str, Any]]:
    specs: list[dict[str, Any]] = yaml.safe_load(path.read_text())
    return specs


@pytest.mark.parametrize("model", ["tiny-vlm", "org/name", "/models/mine"])
@pytest.mark.parametrize("test", [None, {"builtin": "digits", "split": "test"}])
def test_a_chain_is_a_valid_pipeline(model: str, test: dict[str, Any] | None) -> None:
    specs = chain("mine", model, {"builtin": "digits"}, {"builtin": "digits", "split": "validation"}, test)
    kinds = [job_spec_adapter.validate_python(spec).kind for _, spec in with_ids(specs)]
    assert kinds == ["train"] * (2 if model == "tiny-vlm" else 1) + ["evaluate"] * (test is not None)


def test_init_writes_a_pipeline_that_submit_takes(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").touch()
    made = calibrl("init", "--data", "train.jsonl", "--test", "held", "--model", "tiny-vlm", "--name", "own")
    assert made.stdout == "pipeline.yaml: own-warm-up, own-calibrl, own-evaluation\n"
    assert "&" not in (tmp_path / "pipeline.yaml").read_text()  # no aliases
    warm_up, training, evaluation = written(tmp_path / "pipeline.yaml")
    assert warm_up["data"] == training["data"] == {"path": str(tmp_path / "train.jsonl")}
    assert training["model"] == {"from_job": "@own-warm-up"} and "validation" not in training
    assert evaluation["models"] == [{"from_job": "@own-warm-up"}, {"from_job": "@own-calibrl"}]
    assert evaluation["data"] == [{"dataset": "held"}]
    service.on("GET", "/v1/datasets", page())
    service.on("POST", "/v1/pipelines", (201, page(job(), job(), job())))
    assert "no dataset has an id that begins with 'held'" in fault(calibrl("submit", "pipeline.yaml"), 2)
    assert "pipeline.yaml exists" in fault(calibrl("init", "--data", "digits"), 2)
    assert calibrl("init", "--data", "digits", "--force").exit_code == 0
    assert [spec["kind"] for spec in written(tmp_path / "pipeline.yaml")] == ["train", "train"]
    assert calibrl("submit", "pipeline.yaml").exit_code == 0


def test_init_names_what_is_missing_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--data: is not given" in fault(calibrl("init"), 2)
