"""Jobs that run again: what attempts ran on, and the comparison of two series step by step."""

import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from calibrl.schemas import Job, SeriesComparison
from calibrl.views.reproductions import comparison_lines
from jobs import models
from jobs.db import session_scope
from jobs.repository import jobs, metrics
from tests.support import job_steps
from tests.support.rest import submitted

pytestmark = pytest.mark.integration
RECORD = {"code": {"commit": "a1", "dirty": False}, "packages": {"torch": "2.11"}, "digests": {"data": "d1"}}


@pytest.fixture
def pair(http: httpx.Client, client: Client) -> tuple[Job, Job]:
    """A job and the job that runs it again, with the same metrics at three steps and the same checkpoint."""
    first = UUID(submitted(http, labels={"team": "vision"}, seed=3)["id"])
    second = client.reproduce(first).id
    for id in (first, second):
        write(id, {1: {"loss/total": 0.5, "perf/step_seconds": 1.0}, 2: {"loss/total": 0.25, "reward/mean": math.nan}})
        write(id, {3: {"loss/total": 0.125}})
        job_steps.checkpoint(id, 3)
        job_steps.run("UPDATE jobs SET status = 'succeeded', step = 3 WHERE id = :id", id=id)
    return client.job(first), client.job(second)


def write(id: UUID, steps: dict[int, dict[str, Any]]) -> None:
    with session_scope() as session:
        metrics.upsert(session, id, [(step, datetime.now(UTC), values) for step, values in steps.items()])


def record(id: UUID, content: dict[str, Any]) -> None:
    with session_scope() as session:
        session.add(models.Attempt(job_id=id, number=1, worker="w"))
        session.flush()
        jobs.set_start(session, id, 1, 0, content)


def lines(found: SeriesComparison) -> list[str]:
    return [*comparison_lines(found)]


def test_a_job_runs_again_with_the_same_settings(pair: tuple[Job, Job]) -> None:
    first, second = pair
    assert (second.name, second.forked_from, second.forked_step) == (f"{first.name}-again", first.id, None)
    assert {**second.spec, "name": ""} == {**first.spec, "name": ""}


def test_equal_series_are_equal_bit_for_bit(client: Client, pair: tuple[Job, Job]) -> None:
    first, second = pair
    write(second.id, {2: {"perf/step_seconds": 9.0, "schedule/epoch": 1.0}})  # times do not count, nor the schedule
    found = client.compare_series(second.id)
    assert (found.first, found.second, found.steps, found.metrics) == (first.id, second.id, 3, 2)
    assert (found.equal, found.complete, found.deviations, found.settings) == (True, True, [], [])
    assert (found.checkpoint_step, found.checkpoint_equal) == (3, True)
    assert lines(found) == ["3 steps and 2 metrics are equal bit for bit, with the weights of step 3"]


def test_jobs_without_metrics_are_not_equal(client: Client, pair: tuple[Job, Job]) -> None:
    """An audit has none, and those of old jobs are deleted."""
    job_steps.run("DELETE FROM metrics")
    found = client.compare_series(pair[1].id)
    assert (found.equal, found.complete, found.metrics) == (False, True, 0)
    assert lines(found)[0] == "nothing to compare: a job has no metrics"


def test_the_first_step_and_metric_that_differ_are_named(client: Client, pair: tuple[Job, Job]) -> None:
    """Step 2 differs in two metrics, step 3 in one of them again; the next larger double of 0.25 is different."""
    _, second = pair
    write(second.id, {2: {"loss/total": math.nextafter(0.25, 1), "reward/mean": 0.5}, 3: {"loss/total": 9.0}})
    write(second.id, {3: {"length/mean": 7.0}})
    found = client.compare_series(second.id)
    assert not found.equal
    assert [(one.metric, one.step) for one in found.deviations] == [
        ("reward/mean", 2),
        ("loss/total", 2),
        ("length/mean", 3),
    ]
    assert found.deviations[1].relative == pytest.approx(2.2e-16, rel=0.1)
    assert (found.deviations[0].first, found.deviations[2].first) == ("NaN", None)
    assert lines(found)[0] == "3 steps and 3 metrics compared: they differ first at step 2 in reward/mean"


def test_what_else_differs_is_named(http: httpx.Client, client: Client, pair: tuple[Job, Job]) -> None:
    first, second = pair
    record(first.id, RECORD)
    record(second.id, RECORD | {"code": {"commit": "b2", "dirty": True}, "packages": {"torch": "2.12", "x": "1"}})
    job_steps.run("UPDATE jobs SET spec = jsonb_set(spec, '{optimizer,lr}', '0.5') WHERE id = :id", id=second.id)
    found = client.compare_series(second.id)
    assert [(one.field, one.second) for one in found.settings] == [("optimizer.lr", "0.5")]
    assert [(one.field, one.first, one.second) for one in found.surroundings] == [
        ("code.commit", "a1", "b2"),
        ("code.dirty", "false", "true"),
        ("packages.torch", "2.11", "2.12"),
        ("packages.x", "none", "1"),
    ]
    assert "  packages.torch: 2.11 against 2.12" in lines(found)
    (attempt,) = client.attempts(first.id)
    assert (attempt.number, attempt.record) == (1, RECORD)


def test_other_weights_are_no_reproduction(client: Client, pair: tuple[Job, Job]) -> None:
    job_steps.checkpoint(pair[1].id, 3, text="weightz")
    found = client.compare_series(pair[1].id)
    assert (found.equal, found.deviations, found.checkpoint_equal) == (False, [], False)
    assert lines(found)[0].endswith("are equal bit for bit, but the weights of step 3 differ")


def test_a_running_job_is_compared_as_far_as_it_is(client: Client, pair: tuple[Job, Job]) -> None:
    job_steps.run("UPDATE jobs SET status = 'running', step = 2 WHERE id = :id", id=pair[1].id)
    job_steps.run("DELETE FROM metrics WHERE job_id = :id AND step = 3", id=pair[1].id)
    found = client.compare_series(pair[1].id)
    assert (found.steps, found.equal, found.complete) == (2, True, False)


def test_a_job_without_an_original_needs_another(client: Client, pair: tuple[Job, Job]) -> None:
    first, second = pair
    with pytest.raises(CalibrlError, match="name the job to compare with"):
        client.compare_series(first.id)
    assert client.compare_series(first.id, second.id).equal
