"""Finished runs of studies as files, and as runs of another project."""

from pathlib import Path

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from calibrl.schemas import StudyStatus
from calibrl.studies.results import read_results, write_new_results
from tests.support import job_steps
from tests.support.rest import refused
from tests.support.study_jobs import STUDY, recorded_run
from tests.support.study_requests import JOBS, advance, end_all, names, posted

pytestmark = pytest.mark.integration


def test_recorded_runs_stand_in_for_jobs_in_another_project(http: httpx.Client, client: Client, tmp_path: Path) -> None:
    """The runs of a study travel as files. There only the run without a file is trained, after its own warm-up."""
    warm_up = {"changes": {"algorithm": {"type": "sft"}}, "each_seed": True}
    study = posted(http, baseline="a", warm_up=warm_up)
    advance()
    end_all()
    advance()
    end_all({"a": [0.0, 0.5, 0.75], "b": [0.25, 0.75, 1.0]})
    advance()
    there = client.study(study["id"])
    assert there.status is StudyStatus.SUCCEEDED
    stale = tmp_path / "a.seed-0.0123456789abcdef.json.gz"  # of a run with other settings
    stale.touch()
    written = write_new_results(client, there, tmp_path)
    stale.unlink()
    runs = [f"{arm}.seed-{seed}" for seed in (0, 1) for arm in "ab"]
    assert [path.name.rpartition(".json")[0].rpartition(".")[0] for path in written] == runs
    assert write_new_results(client, there, tmp_path) == []
    written[0].unlink()  # arm a, seed 0

    client.put_project("elsewhere", {})
    for run in read_results(tmp_path):
        client.add_study_run(run, project="elsewhere")
    base = STUDY["base"] | {"project": "elsewhere"}
    other = posted(http, base=base, baseline="a", warm_up=warm_up)
    advance()
    end_all()
    advance()
    assert names(http, project="elsewhere") == ["slopes seed 0 warm-up", *JOBS[:2]]
    end_all({"a": [0.0, 0.5, 0.75]})
    advance()
    assert client.study(other["id"]).status is StudyStatus.SUCCEEDED
    assert [run.recorded for run in client.study_runs(other["id"])] == [False, True, True, True]
    first, second = client.study_report(study["id"]), client.study_report(other["id"])
    assert second.comparisons == first.comparisons
    assert [run.recorded for run in second.runs] == [False, True, True, True]
    assert [run.accuracies for run in second.runs] == [run.accuracies for run in first.runs]
    job_steps.run("UPDATE recorded_runs SET run = run - 'splits'")  # by a version with other records
    assert not any(run.recorded for run in client.study_report(other["id"]).runs)


def test_an_unfinished_run_is_not_recorded(http: httpx.Client, client: Client) -> None:
    study = posted(http)
    advance()
    with pytest.raises(CalibrlError, match="There is no finished run of arm a with seed 0"):
        client.study_run(study["id"], "a", 0)
    end_all()
    job_steps.run(
        """INSERT INTO metrics SELECT id, number, now(), '{"validation/accuracy": 0.5}'
        FROM jobs, generate_series(1, 1001) AS number WHERE name = :name""",
        name=JOBS[0],
    )
    found = client.study_run(study["id"], "a", 0)
    assert (len(found.curve), found.curve[0].step, found.curve[-1].step) == (200, 1, 1001)
    run = found.model_dump(mode="json")
    run["training"]["status"] = "failed"
    large = recorded_run()
    large["splits"][0] |= {"prompts": [f"{number:016x}" for number in range(9000)], "values": [0.5] * 9000}
    assert http.post("/v1/studies/runs", json={"run": large}).status_code == 204
    missing = http.post("/v1/studies/runs", json={"run": recorded_run(), "project": "nowhere"})
    assert refused(missing, 404)["detail"] == "There is no project nowhere."
    answer = http.post("/v1/studies/runs", json={"run": run})
    assert refused(answer, 422) and "must be a succeeded job of a study" in answer.text
