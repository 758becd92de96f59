"""Panels of sampled groups on a job's page: the map and the rollouts."""

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, JobStatus, Role
from dashboard.reads import live, service
from tests.support.dashboard.pages import charts, finished, forget_reads, html, job_page, press
from tests.support.dashboard.world import World
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def test_the_map_has_the_colours_of_the_runs_rewards(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "a")
    rewards = [{"type": "math", "weight": 1.0}, {"type": "format", "weight": 0.5}]
    world.change(measured, spec=measured.spec | {"rewards": rewards})
    (figure,) = charts(job_page(measured.id, "Map")).values()
    assert (figure["data"][0]["marker"]["cmin"], figure["data"][0]["marker"]["cmax"]) == (0, 1.5)


def test_rollouts_show_a_group_as_inert_text(world: World, measured: Job) -> None:
    hostile = "<script>alert(1)</script> **bold** $x$"
    world.keep_sample(measured, 10, "an older group")
    world.keep_sample(measured, 20, "<answer>7</answer>", hostile, expert=hostile)
    app = job_page(measured.id, "Rollouts")
    text = html(app)
    assert "script" in text  # in pieces, as its tokens are coloured one by one
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; **bold** $x$" in text  # the expert, in one piece
    assert "an older group"[:4] not in text
    assert not [element for element in app.markdown if "script" in element.value]
    assert text.count('<img src="data:image/png;base64,') == 1
    assert "Step 20: 1 of 2 correct" in app.caption[-1].value


def test_groups_are_searched_and_listed_as_links(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "a needle")
    world.keep_sample(measured, 20, "hay")
    app = job_page(measured.id, "Rollouts")
    app.text_input(key="search").set_value("needle").run()
    assert not app.exception
    assert f"job?id={measured.id}&amp;panel=Rollouts&amp;step=10&amp;group=1" in html(app)
    assert "step=20" not in html(app)
    app.number_input(key="search_low").set_value(0.25).run()
    assert any("q=needle" in path and "min_reward=0.25" in path for path in world.requests)


def test_a_group_has_an_address(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "olde")
    world.keep_sample(measured, 20, "newe")
    text = html(job_page(measured.id, "Rollouts", step="10", tint="Entropy"))
    assert "olde" in text
    assert "newe" not in text
    assert "Entropy +0.200 nats" in text


def test_a_map_click_opens_the_group_at_its_own_address(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "olde")
    world.keep_sample(measured, 10, "seco")
    world.keep_sample(measured, 20, "newe")
    app = job_page(measured.id, "Map")
    faint, strong = charts(app)["map"]["data"]
    assert (strong["customdata"], faint["customdata"]) == ([[20, 1]], [[10, 1], [10, 2]])
    assert f"job?id={measured.id}&amp;panel=Rollouts&amp;step=20&amp;group=1" in html(app)
    app.select_slider(key="map_step").set_value("10").run()
    assert "step=10&amp;group=2" in html(finished(app))
    app.session_state["panel"], app.session_state["step"], app.session_state["group"] = "Rollouts", "10", "2"
    text = html(finished(app.run()))
    assert "seco" in text
    assert "olde" not in text


def test_a_new_sample_does_not_replace_the_one_that_is_read(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "olde")
    app = job_page(measured.id, "Rollouts")
    world.keep_sample(measured, 20, "newe")
    forget_reads()
    text = html(finished(app.run()))
    assert "olde" in text and "newe" not in text
    text = html(press(app, "New samples: show step 20"))
    assert "newe" in text and "olde" not in text
    assert "New samples: show step 20" not in [button.label for button in finished(app.run()).button]


def test_buttons_lead_to_the_neighbouring_step_and_group(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "olde")
    world.keep_sample(measured, 20, "mida")
    world.keep_sample(measured, 20, "midb")
    world.keep_sample(measured, 30, "newe")
    app = press(press(job_page(measured.id, "Rollouts"), "Previous step"), "Previous step")
    assert "mida" in html(app)
    assert "midb" in html(press(app, "Next group"))
    assert "olde" in html(press(app, "Previous step"))
    disabled = {button.label for button in app.button if button.disabled}
    assert disabled == {"Previous step", "Previous group", "Next group"}


def test_equal_completions_are_folded_and_kinds_chosen(world: World, measured: Job) -> None:
    """Only the first completion of a sample passes."""
    world.keep_sample(measured, 10, "good", "same", "same", "else")
    app = job_page(measured.id, "Rollouts")
    assert "2 equal completions: 2, 3" in [caption.value for caption in app.caption]
    assert html(app).count("Completion</div>") == 3
    app.toggle(key="completion-fold").set_value(False).run()
    assert html(finished(app)).count("Completion</div>") == 4
    app.button_group(key="completion-kinds").set_value(["Correct"]).run()
    assert html(finished(app)).count("Completion</div>") == 1 and "good" in html(app)


def test_an_unknown_step_or_group_in_the_url_is_named(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "olde")
    app = job_page(measured.id, "Rollouts", step="9999", group="77")
    assert [text.value.split(",")[0] for text in app.warning] == [
        "The URL asks for step '9999'",
        "The URL asks for group '77'",
    ]
    assert "Prompt train\\-17" in [caption.value for caption in app.caption]


def test_a_step_with_fewer_groups_shows_its_first(world: World, measured: Job) -> None:
    for text in ("one ", "two "):
        world.keep_sample(measured, 10, text)
    world.keep_sample(measured, 20, "new ")
    app = job_page(measured.id, "Rollouts", step="10", group="2")
    assert "two " in html(app)
    app.select_slider(key="step").set_value("20").run()
    assert "new " in html(finished(app))


def panel_alone(job: Job) -> AppTest:
    """A panel whose page read the job before: a tick, or a choice in the panel, runs nothing else of the page."""

    def script(record: str) -> None:
        import streamlit as st

        from calibrl.schemas import Job
        from dashboard import states
        from dashboard.panels import common, rollouts
        from dashboard.reads import service

        job = Job.model_validate_json(record)

        with states.explained("page"):
            if st.session_state.get("ran"):
                service.job(str(job.id))
            st.session_state["ran"] = True
            common.draw_live(job, rollouts._panel)

    return finished(AppTest.from_function(script, args=(job.model_dump_json(),), default_timeout=LIMIT_SECONDS).run())


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.SUCCEEDED])
def test_a_panel_shows_nothing_that_others_read_once_the_right_has_ended(
    world: World, measured: Job, status: JobStatus
) -> None:
    job = world.change(measured, status=status)
    world.keep_sample(job, 10, "secr")
    first = world.key
    assert "secr" in html(panel_alone(job))
    second = world.sign_in("eve", {"default": Role.VIEWER})
    assert "secr" in html(panel_alone(job))
    world.revoke(second)
    service.clear_job_caches()
    app = panel_alone(job)
    assert "secr" not in html(app)
    assert [header.value for header in app.subheader] == ["API key revoked or expired"]
    world.key = first
    assert "secr" in html(panel_alone(job))


def test_a_failing_service_leaves_earlier_data_on_the_page(
    world: World, measured: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.keep_sample(measured, 10, "secr")
    panel_alone(measured)
    world.fails = True
    monkeypatch.setattr(live, "FRESH", 0.0)
    service.clear_job_caches()
    before = len(world.requests)
    app = panel_alone(measured)
    assert "secr" in html(app)
    assert len(world.requests) > before  # it has asked, and was refused
    assert not app.warning  # the head of the page warns
