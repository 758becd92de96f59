"""Verdicts by one click below each completion, and the error rates of the verifiers."""

import pytest

from calibrl.schemas import Job, Role
from jobs.db import session_scope
from jobs.repository import verdicts
from tests.support.dashboard.pages import finished, html, job_page
from tests.support.dashboard.world import World

pytestmark = pytest.mark.integration


def test_one_click_stores_a_verdict_with_its_user(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "<answer>7</answer>", "<answer>8</answer>")
    app = job_page(measured.id, "Rollouts")
    buttons = [button for button in app.button if button.label == "Wrong"]
    assert len(buttons) == 2
    buttons[0].click()
    text = html(finished(app.run()))
    with session_scope() as session:
        (row,) = verdicts.of_job(session, measured.id)
    assert (row.completion, row.right, row.passed, row.picked) == (0, False, True, "chosen")
    assert f"{row.user}: wrong" in text


def test_viewers_see_verdicts_and_cannot_give_any(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "<answer>7</answer>")
    world.sign_in("reader", {"default": Role.VIEWER})
    app = job_page(measured.id, "Rollouts")
    assert not [button for button in app.button if button.label in ("Right", "Wrong")]
