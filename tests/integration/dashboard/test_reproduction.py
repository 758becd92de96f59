"""A job that runs again: the button, what it ran on, and the comparison with its original."""

import pytest

from calibrl.schemas import Job, JobStatus
from jobs import models
from jobs.db import session_scope
from jobs.repository import jobs
from tests.support.dashboard.pages import html, job_page, press
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration
RECORD = {"code": {"commit": HOSTILE}, "packages": {"torch": "2.11", "numpy": "2.4"}, "hardware": {"gpus": []}}


@pytest.fixture
def original(world: World) -> Job:
    job = world.add(name="first", status=JobStatus.SUCCEEDED, step=2)
    for step, loss in ((1, 0.5), (2, 0.25)):
        world.measure(job, range(step, step + 1), {"loss/total": loss})
    return world.job(job.id)


def again(world: World, original: Job, loss: float) -> Job:
    job = world.add(name="again", status=JobStatus.SUCCEEDED, step=2, forked_from=original.id)
    for step, value in ((1, 0.5), (2, loss)):
        world.measure(job, range(step, step + 1), {"loss/total": value})
    return world.job(job.id)


def test_a_job_that_succeeded_can_run_again(world: World, original: Job) -> None:
    press(job_page(original.id), "Reproduce")
    assert f"/v1/jobs/{original.id}/reproduce" in world.requests
    assert world.named("first-again").forked_from == original.id
    running = world.add(name="runs")
    assert "Reproduce" not in [button.label for button in job_page(running.id).button]


def test_what_a_job_ran_on_is_shown_as_text(world: World, original: Job) -> None:
    with session_scope() as session:
        session.merge(models.Attempt(job_id=original.id, number=1, worker="w"))
        session.flush()
        jobs.set_start(session, original.id, 1, 0, RECORD)
    text = html(job_page(original.id, "Spec"))
    assert "code.commit" in text and "2 distributions" in text and "<script>" not in text


def test_a_repeated_job_is_compared_with_its_original(world: World, original: Job) -> None:
    same, other = again(world, original, 0.25), again(world, original, 0.26)
    text = html(press(job_page(same.id, "Spec"), "Compare step by step"))
    assert "equal bit for bit" in text and "2 steps" in text
    text = html(press(job_page(other.id, "Spec"), "Compare step by step"))
    assert ">different<" in text and "<code>loss/total</code>" in text and ">0.26<" in text
    bare = world.add(name="bare", status=JobStatus.SUCCEEDED)
    copy = world.add(name="copy", status=JobStatus.SUCCEEDED, forked_from=bare.id)
    text = html(press(job_page(copy.id, "Spec"), "Compare step by step"))
    assert "nothing to compare" in text and "equal bit for bit" not in text
