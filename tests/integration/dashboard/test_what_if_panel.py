"""The result of a what-if on the page of its job, and the dialog that submits one."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, JobStatus
from tests.support.dashboard.pages import finished, html, job_page
from tests.support.dashboard.world import HOSTILE, World
from tests.support.waiting import LIMIT_SECONDS
from tests.support.what_ifs import completion, what_if_result

pytestmark = pytest.mark.integration


def test_updates_quadrants_and_tokens_are_shown(world: World) -> None:
    job = world.add(kind="what_if", name="compared", status=JobStatus.SUCCEEDED, result=what_if_result())
    app = job_page(job.id)
    text = html(app)
    for part in ("slope 0", "negative_slope: 0", "+0.7500", "+2.000", "-3.000", "Confident, correct (10)", "+4.000"):
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


def form(job_id: str) -> AppTest:
    """Return the dialog's content: the test runner closes a dialog at every run."""

    def script(job_id: str) -> None:
        import streamlit as st

        from dashboard.forms import what_if_dialog
        from dashboard.reads import service

        st.query_params.setdefault("id", job_id)
        what_if_dialog.form(service.job(job_id))

    return finished(AppTest.from_function(script, args=(job_id,), default_timeout=LIMIT_SECONDS).run())


def test_the_dialog_submits_a_what_if_and_opens_it(world: World, measured: Job) -> None:
    world.keep_checkpoint(measured, 50)
    app = form(str(measured.id))
    assert app.selectbox[0].options == ["Step 50"]
    for text, said in (("a: 1", "a: write settings"), ("a: {negative_slope: 3}", "variants.a.negative_slope")):
        app.text_area[0].set_value(text)
        app.button(key="what-if-submit").click().run()
        assert finished(app).code[0].value.startswith(said)
    app.text_area[0].set_value("slope 0: {negative_slope: 0}")
    app.button(key="what-if-submit").click().run()
    new = world.named(f"{measured.name}-what-if")
    assert [variant["name"] for variant in new.spec["variants"]] == ["slope 0"]
    assert finished(app).query_params["id"] == str(new.id)


def test_a_what_if_needs_a_checkpoint(world: World, measured: Job) -> None:
    assert "no checkpoint yet" in form(str(measured.id)).markdown[0].value
