"""The page of studies: the list, progress, differences, bands over seeds, ranks, parallel coordinates and runs."""

from typing import Any
from uuid import UUID, uuid4

import pytest
import streamlit as st

from calibrl.client import Client
from calibrl.schemas import JobStatus, Role, Study, StudyStatus
from dashboard.charts import study_figures
from dashboard.palette import POLICY
from jobs.db import session_scope
from jobs.repository import accuracies, jobs, studies
from tests.support.dashboard.pages import charts, html, open_page, press
from tests.support.dashboard.world import HOSTILE, World
from tests.support.study_jobs import STUDY, digests
from tests.support.study_requests import advance

pytestmark = pytest.mark.integration
ARMS = {"slow": {}, "quick": {"optimizer.lr": 0.01, "algorithm.negative_slope": 0.5}}
VALUES = {"slow": [0.0, 0.5, 0.75], "quick": [0.25, 0.75, 1.0]}


def post(world: World, **changes: Any) -> Study:
    with Client(api_key=world.key) as client:  # CALIBRL_API_URL is set
        return client.post_study(STUDY | {"arms": ARMS, "baseline": "slow"} | changes)


@pytest.fixture
def ended(world: World) -> Study:
    """A study of two arms with two seeds that has ended. Its runs have validated at steps 1 and 2."""
    study = post(world, metrics=["perf/step_seconds"])
    advance()
    with session_scope() as session:
        found = studies.jobs_of(session, study.id).values()
        ids = {job.id: (job.kind, job.labels["study-arm"], int(job.labels["study-seed"])) for job in found}
    for id, (kind, arm, seed) in ids.items():
        finish(world, id, kind, arm, seed)
    advance()
    with session_scope() as session:
        return Study.model_validate(studies.get(session, study.id))


def finish(world: World, id: UUID, kind: str, arm: str, seed: int) -> None:
    row = {"model": "m", "model_index": 0, "split": "test", "samples": 1, "prompts": 3, "metrics": {}, "sources": {}}
    if kind == "train":
        for step in (1, 2):
            values = {"validation/accuracy": 0.1 * step + 0.2 * seed, "perf/step_seconds": 2.0}
            world.measure(world.job(id), range(step, step + 1), values)
    with session_scope() as session:
        job = jobs.get(session, id)
        job.status, job.started_at, job.finished_at = JobStatus.SUCCEEDED, job.created_at, job.created_at
        if kind == "evaluate":
            accuracies.put(session, id, 0, "test", digests(VALUES[arm]), VALUES[arm])
            job.result = {"results": [row], "comparisons": []}


def test_the_list_shows_studies_with_their_progress(world: World) -> None:
    assert "No studies yet" in html(open_page("studies"))
    study = post(world)
    st.cache_resource.clear()
    text = html(open_page("studies"))
    assert f'href="studies?id={study.id}"' in text and "0 of 8 ended" in text and "unknown" in text


def test_a_study_that_has_not_begun_has_empty_charts(world: World) -> None:
    study = post(world)
    app = open_page("studies", id=str(study.id))
    assert "0 running, 8 waiting" in html(app)
    assert charts(app) == {}


def test_an_ended_study_shows_its_report(ended: Study) -> None:
    """quick is better by 0.25 on every prompt, and has rank 1 with both seeds."""
    app = open_page("studies", id=str(ended.id))
    assert ended.status is StudyStatus.SUCCEEDED
    text, drawn = html(app), charts(app)
    assert "<code>perf/step_seconds</code>" in text and ">+0 (+0 to +0)<" in text
    assert "+25.0 pp" in text and ">better<" in text and "8 of 8 ended" in text
    (difference,) = drawn["differences-0"]["data"]
    assert (difference["x"], difference["name"]) == ([25.0], "distinguishable")
    seeds, means = drawn["ranks"]["data"]
    assert (means["x"], drawn["ranks"]["layout"]["yaxis"]["ticktext"]) == ([1.0, 2.0], ["quick", "slow"])
    assert seeds["text"] == ["2 seeds", "2 seeds"]
    with session_scope() as session:
        for job in studies.jobs_of(session, ended.id).values():
            assert f'href="job?id={job.id}"' in text


def test_bands_span_the_seeds(ended: Study) -> None:
    """Seeds 0 and 1 validated 0.1 and 0.3, then 0.2 and 0.4; a step has 8 prompts of 8 rollouts."""
    drawn = charts(open_page("studies", id=str(ended.id)))["bands-step"]["data"]
    low, high, mean = drawn[:3]
    assert (low["y"], high["y"], mean["y"]) == ([0.1, 0.2], [0.3, 0.4], [0.2, 0.3])
    assert (mean["x"], mean["name"]) == ([1, 2], "slow")
    app = open_page("studies", **{"id": str(ended.id), "study-axis": "rollouts"})
    (spec,) = {int(job["rollout"]["group_size"]) * 8 for job in [_spec(ended)]}
    assert charts(app)["bands-rollouts"]["data"][2]["x"] == [spec, 2 * spec]


def _spec(study: Study) -> dict[str, Any]:
    with session_scope() as session:
        first = next(job for job in studies.jobs_of(session, study.id).values() if job.kind == "train")
        return dict(jobs.get(session, first.id).spec)


def test_parallel_coordinates_have_an_axis_per_change(ended: Study) -> None:
    drawn = charts(open_page("studies", id=str(ended.id)))["parallel"]["data"]
    assert [trace["name"] for trace in drawn] == ["slow", "quick"]
    assert drawn[0]["x"] == ["optimizer.lr", "algorithm.negative_slope", "accuracy on test"]
    assert drawn[1]["text"] == ["optimizer.lr: 0.01", "algorithm.negative_slope: 0.5", "accuracy on test: 0.6667"]
    assert drawn[0]["text"][0] == "optimizer.lr: default"


def test_a_member_cancels_a_study_and_a_viewer_cannot(world: World) -> None:
    study, other = post(world), post(world, name="other")
    app = press(open_page("studies", id=str(study.id)), "Cancel study")
    assert f"/v1/studies/{study.id}/cancel" in world.requests
    assert "cancelling" in html(app)
    world.sign_in("eve", {"default": Role.VIEWER})
    assert not open_page("studies", id=str(other.id)).button


def test_text_of_users_is_shown_as_text(world: World) -> None:
    study = post(world, arms={"slow": {}, "quick": {"prompts.system": HOSTILE}})
    assert "<script>" not in html(open_page("studies", id=str(study.id)))


def test_a_study_that_does_not_exist_is_explained(world: World) -> None:
    for id in (str(uuid4()), "nonsense"):
        assert "Study not found" in html(open_page("studies", id=id))


# ---- Figures


def test_axes_of_very_different_numbers_are_logarithmic() -> None:
    """1, 10 and 100 are at equal distances; so are 1, 2 and 3."""
    arms: dict[str, dict[str, study_figures.Value]] = {
        name: {"wide": wide, "near": near, "word": word, "accuracy": 0.5}
        for name, wide, near, word in (("a", 1.0, 1.0, "x"), ("b", 10.0, 2.0, "y"), ("c", 100.0, 3.0, "x"))
    }
    drawn = study_figures.parallel(arms, "accuracy", dict.fromkeys(arms, POLICY))
    assert [trace["y"] for trace in drawn.data] == [[0, 0, 0, 0], [0.5, 0.5, 1, 0], [1, 1, 0, 0]]
    assert [note["text"] for note in drawn.layout["annotations"]] == ["1", "100", "1", "3", "x", "y", "0.5", ""]


def test_arms_are_sorted_by_their_mean_rank() -> None:
    drawn = study_figures.ranks({"a": [2.0, 3.0], "b": [1.0, 1.0], "c": [3.0, 2.0], "d": []})
    assert drawn.layout["yaxis"]["ticktext"] == ["b", "a", "c"]
    assert drawn.data[1]["x"] == [1.0, 2.5, 2.5]
