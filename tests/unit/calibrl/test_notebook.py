"""Display in notebooks, and submissions with changed fields."""

import sys
from pathlib import Path
from typing import Any

import pytest

from calibrl.client import CalibrlError, Client, SpecError
from calibrl.schemas import job_spec_adapter

from .conftest import JOB_ID, JOB_PATH, SPEC, Service, job, page

TS = "2026-01-01T00:00:00Z"


def row(step: int, **values: object) -> dict[str, object]:
    return {"step": step, "ts": TS, "values": {name.replace("_", "/", 1): value for name, value in values.items()}}


def test_the_table_of_a_job_has_no_markup_of_others(service: Service) -> None:
    hostile = "<img src=x onerror=alert(1)>&\"'"
    fields: dict[str, Any] = {
        "name": hostile,
        "message": hostile,
        "notes": hostile,
        "labels": {"a": hostile},
        "user": hostile,
    }
    service.on("GET", JOB_PATH, job(**fields, status="failed", reason="crashed"))
    with Client() as client:
        shown = client.job(JOB_ID)._repr_html_()
    assert "<img" not in shown and "onerror=alert(1)&gt;&amp;&quot;&#x27;" in shown
    assert shown.count("&lt;img") == 5
    assert "<th>status</th><td>failed (crashed)</td>" in shown
    assert "<th>step</th><td>3 of 10</td>" in shown


def test_curves_are_a_frame_with_a_row_per_bucket(service: Service) -> None:
    series = {
        "job_id": str(JOB_ID),
        "name": "reward/mean",
        "start": [0, 2],
        "first_step": [1, 2],
        "last_step": [1, 3],
        "ts": [TS, TS],
        "count": [1, 0],
        "non_finite": [0, 2],
        **{key: [0.5, None] for key in ("min", "max", "mean", "last")},
    }
    empty = series | {name: [] for name in series if name not in ("job_id", "name")}
    service.on("GET", "/v1/metrics", {"width": 2, "last_step": 3, "series": [series, empty]})
    with Client() as client:
        frame = client.series(JOB_ID, "reward/mean").to_pandas()
    assert frame[["job_id", "name"]].values.tolist() == [[str(JOB_ID), "reward/mean"]] * 2
    assert frame["start"].tolist() == [0, 2] and frame["non_finite"].tolist() == [0, 2]
    assert frame["mean"].isna().tolist() == [False, True] and frame["mean"][0] == 0.5
    assert str(frame["ts"][0]) == "2026-01-01 00:00:00+00:00"


@pytest.mark.parametrize(("module", "ask"), [("pandas", "to_pandas"), ("matplotlib.figure", "plot")])
def test_a_missing_package_is_named(service: Service, monkeypatch: pytest.MonkeyPatch, module: str, ask: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    service.on("GET", f"{JOB_PATH}/metrics", page(row(1, a_b=1.0)))
    package = module.partition(".")[0]
    with Client() as client, pytest.raises(CalibrlError, match=f"{package} is not installed: `pip install {package}`"):
        getattr(client.all_metrics(JOB_ID), ask)()


def test_fields_of_a_submission_replace_those_of_the_spec(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service.on("POST", "/v1/jobs", (201, job()))
    (tmp_path / "my.yaml").write_text("kind: train\nsteps: 10\nmodel: {builtin: tiny-vlm}\noptimizer: {lr: 1}\n")
    lower = {"optimizer.lr": 1e-5, "model.path": "saved"}
    with Client() as client:
        client.submit("my.yaml", steps=40, **lower)
        client.submit(SPEC, steps=40)
        client.submit(job_spec_adapter.validate_python(SPEC), steps=40)
        with pytest.raises(SpecError, match=r"'steps\.x\.y': the value before 'x'"):
            client.submit("my.yaml", **{"steps.x.y": 1})
    ours, mapping, model = [request.body for request in service.requests]
    assert (ours["steps"], ours["optimizer"]) == (40, {"lr": 1e-5})
    assert ours["model"] == {"path": str(tmp_path / "saved")}
    assert mapping == SPEC | {"steps": 40} and SPEC["steps"] == 10
    assert model["steps"] == 40
