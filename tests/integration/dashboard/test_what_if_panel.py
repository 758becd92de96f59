"""The result of a what-if on the page of its job, and the dialog that submits one."""

import pytest

from calibrl.schemas import JobStatus
from tests.support.dashboard.pages import html, job_page
from tests.support.dashboard.world import HOSTILE, World
from tests.support.what_ifs import completion, what_if_result

pytestmark = pytest.mark.integration


def test_updates_quadrants_and_tokens_are_shown(world: World) -> None:
    job = world.add(kind="what_if", name="compared", status=JobStatus.SUCCEEDED, result=what_if_result())
    app = job_page(job.id)
    text = html(app)
    for part in ("slope 0", "negative_slope: 0.0", "+0.7500", "+2.000", "-3.000", "Confident, correct (10)", "+4.000"):
        assert part in text
    assert "Over-confident, wrong" not in text  # no token is there
    assert "Change by own +0.010 nats" in text
    assert "and 3 more tokens" in text
    chosen = app.selectbox(key="what-if-update").set_value("slope 0").run()
    assert "Change by slope 0 +0.030 nats" in html(chosen)


def test_text_of_prompts_is_no_markup(world: World) -> None:
    result = what_if_result(completions=[completion(prompt=HOSTILE, tokens=[HOSTILE, "b"], prompt_id=HOSTILE)])
    job = world.add(kind="what_if", status=JobStatus.SUCCEEDED, result=result)
    assert "<script>" not in html(job_page(job.id))


def test_a_what_if_without_a_result_says_so(world: World) -> None:
    assert "No result yet" in html(job_page(world.add(kind="what_if").id))
    assert "No result" in html(job_page(world.add(kind="what_if", status=JobStatus.CANCELLED).id))
