"""The dialog that forks a job from one of its checkpoints."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, Role
from tests.support.dashboard.pages import finished, job_page
from tests.support.dashboard.world import World
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def fork_form(job_id: str) -> AppTest:
    """Return the dialog's content: the test runner closes a dialog at every run."""

    def script(job_id: str) -> None:
        import streamlit as st

        from dashboard.forms import fork_dialog
        from dashboard.reads import service

        st.query_params.setdefault("id", job_id)
        fork_dialog.form(service.job(job_id))

    return finished(AppTest.from_function(script, args=(job_id,), default_timeout=LIMIT_SECONDS).run())


def test_a_fork_begins_at_a_checkpoint_and_opens(world: World, measured: Job) -> None:
    world.keep_checkpoint(measured, 50, best=True)
    page = job_page(measured.id, "Spec").button(key="fork").click().run()
    assert page.text_area[0].label.startswith("Config overrides")
    app = fork_form(str(measured.id))
    assert app.selectbox[0].options == ["Best", "Latest", "Step 50"]
    app.text_input[0].set_value("slower")
    app.text_area[0].set_value("optimizer: {lr: 1.0e-5}")
    app.button(key="fork-submit").click().run()
    new = world.named("slower")
    assert (new.forked_from, new.forked_step, new.spec["optimizer"]["lr"]) == (measured.id, 50, 1e-5)
    assert finished(app).query_params["id"] == str(new.id)


def test_a_fork_needs_a_checkpoint(world: World, measured: Job) -> None:
    assert "no checkpoint yet" in fork_form(str(measured.id)).markdown[0].value


def test_an_error_of_a_fork_is_at_its_field(world: World, measured: Job) -> None:
    world.keep_checkpoint(measured, 50)
    app = fork_form(str(measured.id))
    app.text_area[0].set_value("steps: 0")
    app.button(key="fork-submit").click().run()
    assert "steps" in [block.value for block in finished(app).code]
    assert "Must be at least 1" in [text.value for text in app.text]
    for text, said in (("[**bold**", "Invalid YAML"), ("- the __bold__", "Write fields of the config")):
        app.text_area[0].set_value(text)
        app.button(key="fork-submit").click().run()
        assert finished(app).code[0].value.startswith(said)
        assert not app.error and not any("bold" in each.value for each in app.markdown)


def test_a_fork_is_not_offered_to_viewers(world: World, measured: Job) -> None:
    world.sign_in("eve", {"default": Role.VIEWER})
    assert not [button for button in job_page(measured.id, "Spec").button if button.key == "fork"]
