"""Slot-hours over real HTTP: a job of two attempts with known times, its project, and refusals."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.routes.hours import ADDING
from calibrl.client import Client
from calibrl.schemas import HOUR, JobStatus, ProjectHours
from jobs import models
from jobs.db import session_scope
from jobs.insight import hours
from jobs.repository import jobs, metrics
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.rest import refused
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
STEP = {
    "perf/step_seconds": 90.0,
    "perf/rollout_seconds": 50.0,
    "perf/reward_seconds": 10.0,
    "perf/image_seconds": 5.0,
    "exploration/active_groups": 0.6,
    "length/mean": 64.0,
    "length/truncated_share": 0.1,
}


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def planted(status: JobStatus = JobStatus.SUCCEEDED, **changes: Any) -> UUID:
    """A job with 2 GPUs: an attempt of 1000 s that lost 400 s, and one of 500 s."""
    job_id = job_steps.submit(rollout={"max_completion_tokens": 256}, **changes)
    rows: list[tuple[int, datetime, dict[str, Any]]] = [
        (step, at(100 + 100 * step), dict(STEP)) for step in range(1, 6)
    ]
    rows += [(step, at(700 + 100 * step), dict(STEP)) for step in range(6, 9)]
    rows[2][2].update({"validation/accuracy": 0.5})
    rows[7][2].update({"validation/accuracy": 0.7, "perf/validation_seconds": 8.0})
    rows[4][2].update({"perf/update_seconds": "NaN"})
    with session_scope() as session:
        session.add(models.Attempt(job_id=job_id, number=1, worker="w", started_at=at(0), finished_at=at(1000)))
        session.add(models.Attempt(job_id=job_id, number=2, worker="w", started_at=at(1100), finished_at=at(1600)))
        metrics.upsert(session, job_id, rows)
        job = jobs.get(session, job_id)
        job.status, job.gpus, job.created_at, job.finished_at = status, 2, at(-300), at(1600)
    return job_id


def test_the_hours_of_a_job_by_what_they_bought(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the first step: 200 - 90 = 110 s, and 1300 - 90 - 1100 = 110 s. 8 steps of 90 s. Of 8 * 50 s of sampling,
    # 0.4 had no advantage: 160. Of the rest, 0.1 * 256 / 64 of the tokens were of truncated completions: 96.
    monkeypatch.setenv("CALIBRL_GPU_HOUR_PRICE", "3")
    get_settings.cache_clear()
    found = client.hours(planted())
    seconds = {name: value * HOUR / 2 for name, value in found.bought.model_dump().items() if value}
    assert seconds == pytest.approx(
        {
            "start": 110,
            "restarts": 400 + 110,
            "no_advantage": 160,
            "truncated": 96,
            "waiting": 8 * 15,
            "learning": 8 * 90 - 160 - 96 - 8 * 15,
            "validation": 8,
            "other": 1500 - 110 - 510 - 8 * 90 - 8,
        }
    )
    assert found.slots == 2
    assert found.slot_hours == found.gpu_hours == pytest.approx(3000 / HOUR)
    assert found.queued_hours == pytest.approx((300 + 100) / HOUR)
    assert (found.first_accuracy, found.best_accuracy) == (0.5, 0.7)
    assert found.slot_hours_per_point == pytest.approx(3000 / HOUR / 20)
    assert found.price is not None and found.price.currency == "USD"
    assert found.price.amount == pytest.approx(2.5)


def test_long_attempts_are_read_from_blocks(client: Client) -> None:
    """Steps 32 to 63 are the whole block of the first attempt, 96 to 191 those of the second: their rows are emptied.

    Step n ends at 100 n. Attempts: 0 to 7050 s, so that 50 s of it are lost, and 7060 to 20000 s.
    """
    job_id, began = job_steps.submit(rollout={"max_completion_tokens": 256}), at(-20_000)
    spans = ((0, 7050), (7060, 20_000))
    rows = [(step, began + timedelta(seconds=100 * step), dict(STEP)) for step in range(1, 201)]
    rows[39][2]["validation/accuracy"], rows[99][2]["validation/accuracy"] = 0.5, 0.7
    with session_scope() as session:
        for number, span in enumerate(spans, 1):
            first, last = (began + timedelta(seconds=seconds) for seconds in span)
            session.add(models.Attempt(job_id=job_id, number=number, worker="w", started_at=first, finished_at=last))
        metrics.upsert(session, job_id, rows)
        for step in (*range(32, 64), *range(96, 192)):
            row = session.get(models.StepMetrics, (job_id, step))
            assert row is not None
            row.values = {}
    found = client.hours(job_id)
    seconds = {name: value * HOUR for name, value in found.bought.model_dump().items() if value}
    assert seconds == pytest.approx(
        {
            "start": 10,
            "restarts": 50,
            "no_advantage": 200 * 50 * 0.4,
            "truncated": 200 * 50 * 0.6 * 0.4,
            "waiting": 200 * 15,
            "learning": 200 * (90 - 20 - 12 - 15),
            "other": (7050 - 60 - 70 * 90) + (12_940 - 130 * 90),
        }
    )
    assert (found.first_accuracy, found.best_accuracy) == (0.5, 0.7)


def test_the_hours_of_a_project(client: Client) -> None:
    failed, kept = planted(JobStatus.FAILED), planted()
    job_steps.submit()  # it is queued
    found = client.project_hours("default", days=1)
    assert found.jobs == 2
    assert found.slot_hours == pytest.approx(6000 / HOUR)
    assert found.lost_slot_hours == pytest.approx(3000 / HOUR)
    assert sum(found.bought.model_dump().values()) == pytest.approx(found.slot_hours)
    assert {one.job_id for one in found.most} == {failed, kept}
    assert found.price is None
    with session_scope() as session:
        for number in (1, 2):
            session.get_one(models.Attempt, (failed, number)).started_at = at(-86_400 * 3)
    assert client.project_hours("default", days=1).jobs == 1
    with session_scope() as session:
        session.get_one(models.Attempt, (kept, 1)).started_at = at(-86_400 * 3)
        jobs.get(session, kept).created_at = at(-86_400 * 3 - 300)
    (second,) = client.project_hours("default", days=1).most  # the second attempt, of 500 s
    assert second.slot_hours == pytest.approx(1000 / HOUR)
    assert second.bought.start == 0
    assert second.queued_hours == pytest.approx((300 + 100) / HOUR)


def test_hours_of_a_training_without_its_metrics_are_other(client: Client) -> None:
    job_id = planted()
    job_steps.run("UPDATE jobs SET step = 8 WHERE id = :id", id=job_id)
    job_steps.run("DELETE FROM metrics WHERE job_id = :id", id=job_id)
    assert client.hours(job_id).bought.other == pytest.approx(3000 / HOUR)
    job_steps.run("UPDATE jobs SET step = 0 WHERE id = :id", id=job_id)  # it had no step
    assert client.hours(job_id).bought.restarts == pytest.approx(3000 / HOUR)


def test_two_projects_are_added_up_at_once(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []
    released = threading.Event()
    add_up = hours.project_hours

    def held(*arguments: Any) -> ProjectHours:
        entered.append(arguments)
        released.wait(LIMIT_SECONDS)
        return add_up(*arguments)

    monkeypatch.setattr(hours, "project_hours", held)
    with ThreadPoolExecutor(3) as pool:
        answers = pool.map(lambda _: http.get("/v1/projects/default/hours").status_code, range(3))
        try:
            assert eventually(lambda: len(entered) >= 2 and ADDING.statistics().tasks_waiting, limit=60) == 1
            assert len(entered) == 2
        finally:
            released.set()
        assert [*answers] == [200, 200, 200]


def test_evaluations_buy_evaluation_and_a_running_job_counts_to_now(client: Client) -> None:
    spec = {"kind": "evaluate", "name": "x", "models": [{"builtin": "tiny-vlm"}], "data": [{"builtin": "digits"}]}
    job_id = job_steps.submit_spec(spec)
    job_steps.claim()
    job_steps.run("UPDATE attempts SET started_at = now() - interval '1 hour'")
    found = client.hours(job_id)
    assert found.bought.evaluation == pytest.approx(found.slot_hours) == pytest.approx(1.0, abs=0.1)
    assert (found.gpu_hours, found.slot_hours_per_point) == (0, None)


def test_hours_are_refused_for_a_job_that_has_not_started(http: httpx.Client) -> None:
    job_id = job_steps.submit()
    assert "has not started" in refused(http.get(f"/v1/jobs/{job_id}/hours"), 409)["detail"]
    refused(http.get(f"/v1/jobs/{uuid4()}/hours"), 404)
    refused(http.get("/v1/projects/nowhere/hours"), 404)
    refused(http.get("/v1/projects/default/hours", params={"days": 367}), 422)
