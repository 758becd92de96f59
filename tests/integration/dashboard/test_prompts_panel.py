"""The panels of prompts and hours on a job's page, and the hours of a project on the queue's page."""

from datetime import timedelta
from typing import Any

import pytest

from calibrl.schemas import Job
from jobs import models
from jobs.db import session_scope
from jobs.repository import visits
from tests.support.dashboard.pages import finished, html, job_page, open_page
from tests.support.dashboard.world import BEGAN, World

pytestmark = pytest.mark.integration


def visit(job: Job, step: int, prompt_id: str, passed: int) -> str:
    """Store a visit, and return the digest of its prompt."""
    digest = f"{len(prompt_id):016x}"
    lists: dict[str, list[Any]] = {"prompts": [digest], "ids": [prompt_id], "experts": [True], "passed": [passed]}
    numbers = {"sizes": [4], "entropies": [0.5], "gaps": [None], "rareness": [0.25]}
    with session_scope() as session:
        visits.put(session, job.id, [{"step": step, **lists, **numbers}])
    return digest


def test_prompts_are_listed_by_their_life(world: World, measured: Job) -> None:
    for step, passed in ((1, 4), (30, 0)):
        digest = visit(measured, step, "<b>lost</b>", passed)
    for step in (2, 31):
        visit(measured, step, "too hard", 0)
    app = job_page(measured.id, "Prompts")
    text = html(app)
    assert "&lt;b&gt;lost&lt;/b&gt;" in text and "<b>lost" not in text
    assert f"panel=Prompts&amp;prompt={digest}" in text
    assert app.caption[0].value.startswith("2 of 2 prompts.")
    app.segmented_control(key="prompts").set_value("Solved, then lost")
    text = html(finished(app.run()))
    assert "lost" in text and "too hard" not in text


def test_a_prompt_shows_its_visits_and_other_runs(world: World, measured: Job) -> None:
    other = world.add(name="other-run")
    visit(other, 5, "row", 3)
    digest = visit(measured, 1, "row", 1)
    text = html(job_page(measured.id, "Prompts", prompt=digest))
    assert "1 of 4" in text and "0.250" in text
    assert f'href="job?id={other.id}"' in text and "75%" in text
    assert "has not visited" in job_page(measured.id, "Prompts", prompt="f" * 16).code[0].value


def test_a_job_without_visits_says_so(world: World, measured: Job) -> None:
    assert "No visits yet" in html(job_page(measured.id, "Prompts"))


def test_hours_are_on_the_system_panel_and_the_queue_page(world: World, measured: Job) -> None:
    with session_scope() as session:
        attempt = session.get_one(models.Attempt, (measured.id, 1))
        attempt.started_at, attempt.finished_at = BEGAN, BEGAN + timedelta(hours=2)
    text = html(job_page(measured.id, "System"))
    assert "Where the hours went" in text and "2.00 slot-hours" in text
    assert "No advantage" in text
    page = open_page("queue")
    assert "slot-hours" not in html(page)  # nothing is read until it is asked for
