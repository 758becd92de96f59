"""Each page and panel, run by Streamlit's own test runner against a service made by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from streamlit.testing.v1 import AppTest

import dashboard
from calibrl.schemas import Event, Job, JobStatus, Reason, job_spec_adapter
from dashboard.palette import WRONG
from tests.support.waiting import LIMIT_SECONDS

from .conftest import Refusal

if TYPE_CHECKING:
    from tests.unit.dashboard.conftest import World

EXPLORATION = {
    "entropy", "pass-at-k", "groups-solved", "active-groups", "rareness", "heat-rareness", "distinct-answers",
    "common-wrong", "solved-then-lost", "covariance", "reward-spread", "length", "truncated", "clip", "ratio", "kl",
}  # fmt: skip
NAVIGATION = Path(dashboard.__file__).with_name("navigation.py")


def jobs_page() -> AppTest:
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    return finished(app.run())


def job_page(job_id: object, panel: str | None = None, **query: str) -> AppTest:
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.switch_page("app_pages/job.py")
    app.query_params["id"] = str(job_id)
    for name, value in (query | ({"panel": panel} if panel else {})).items():
        app.query_params[name] = value
    return finished(app.run())


def finished(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].stack_trace
    return app


def html(app: AppTest) -> str:
    return "\n".join(element.proto.body for element in app.get("html"))


def charts(app: AppTest) -> dict[str, Any]:
    """Every figure on the page, by its name."""
    found = [json.loads(element.proto.json) for element in app.get("bidi_component")]
    return {data["name"]: json.loads(data["figure"]) for data in found}


def paths(requests: list[str]) -> set[str]:
    """The last word of every address that was asked for."""
    return {urlsplit(request).path.rpartition("/")[2] for request in requests}


def test_the_jobs_list_shows_each_job_with_a_link_to_it(world: World) -> None:
    job = world.add(name="digits-calibrl")
    world.measure(job, range(1, 41))
    text = html(jobs_page())
    assert f'href="job?id={job.id}"' in text
    assert "▶ running" in text
    assert "40 / 280" in text
    assert ">val<" in text


def test_the_jobs_list_filters_by_status(world: World) -> None:
    world.add(name="one-that-runs")
    world.add(name="one-that-failed", status=JobStatus.FAILED)
    app = jobs_page()
    app.button_group[0].set_value("failed").run()
    text = html(finished(app))
    assert "one-that-failed" in text
    assert "one-that-runs" not in text


def test_an_empty_list_says_how_to_submit_a_job(world: World) -> None:
    app = jobs_page()
    assert "No jobs yet" in html(app)
    assert any("calibrl submit" in block.value for block in app.code)


def test_a_service_that_does_not_answer_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st

    monkeypatch.setenv("CALIBRL_API_URL", "http://127.0.0.1:9")
    st.cache_resource.clear()
    from jobs.settings import get_settings

    get_settings.cache_clear()
    app = jobs_page()
    assert app.subheader[0].value == "API unreachable"
    assert "http://127.0.0.1:9" in app.code[0].value


def test_a_wrong_key_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.settings import get_settings

    monkeypatch.setenv("CALIBRL_API_KEY", "another-key")
    get_settings.cache_clear()
    assert jobs_page().subheader[0].value == "API key revoked or expired"


def test_without_a_key_there_is_a_way_to_sign_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.settings import get_settings

    monkeypatch.delenv("CALIBRL_API_KEY")
    get_settings.cache_clear()
    assert 'href="/signin?next=%2F"' in html(jobs_page())
    text = html(job_page("00000000-0000-0000-0000-000000000000", "Log"))
    assert "%3Fid%3D00000000-0000-0000-0000-000000000000%26panel%3DLog" in text
    assert world.requests == []


@pytest.mark.parametrize(
    ("status", "title"),
    [(409, "Conflict"), (413, "Too large"), (422, "Invalid input"), (429, "Too many requests")],
)
def test_a_refusal_of_the_service_has_a_title_by_its_status(world: World, status: int, title: str) -> None:
    world.answers["GET /v1/jobs"] = lambda body: Refusal(status, "because <b>so</b>")
    app = jobs_page()
    assert app.subheader[0].value == title
    assert "because <b>so</b>" in app.code[0].value


@pytest.mark.parametrize("address", ["", "not-an-id"])
def test_an_address_that_names_no_job_is_explained(world: World, address: str) -> None:
    assert "No job selected" in html(job_page(address))


def test_a_job_that_does_not_exist_is_explained(world: World) -> None:
    app = job_page("00000000-0000-0000-0000-000000000000")
    assert "Job not found" in html(app)


@pytest.fixture
def measured(world: World) -> Job:
    job = world.add()
    world.measure(job, range(1, 101))
    return job


def test_the_overview_draws_accuracy_reward_and_losses(world: World, measured: Job) -> None:
    app = job_page(measured.id)
    figures = charts(app)
    assert figures.keys() == {"accuracy", "reward", "losses", "grad-norm"}
    assert [trace["name"] for trace in figures["accuracy"]["data"] if trace.get("showlegend", True)] == [
        "val",
        "val (strict)",
        "train",
        "train (strict)",
    ]
    assert figures["reward"]["data"][0]["x"][-1] == 100
    assert "100 of 280 steps" in html(app)
    assert "left" in html(app)
    assert [tile.label for tile in app.metric] == [
        "Validation accuracy",
        "Train accuracy",
        "Entropy (nats/token)",
        "Gap to the expert (nats/token)",
    ]


@pytest.mark.parametrize(
    ("panel", "names"),
    [
        ("Exploration", EXPLORATION),
        ("System", {"phases", "speed", "memory", "step-seconds"}),
        (
            "Expert mismatch",
            {
                "gap",
                "damped",
                "probe-gap",
                "probe-nll",
                "expert-gradients",
                "expert-agreement",
                "heat-expert-gap",
                "quadrants",
                "expert-nll",
                "expert-losses",
            },
        ),
    ],
)
def test_a_panel_draws_its_charts(world: World, measured: Job, panel: str, names: set[str]) -> None:
    figures = charts(job_page(measured.id, panel))
    assert names <= figures.keys()
    assert all(figure["data"] for figure in figures.values())


def test_no_sentence_claims_an_uncertain_fact(world: World, measured: Job) -> None:
    text = html(job_page(measured.id, "Expert mismatch")) + html(job_page(measured.id, "Exploration"))
    assert "Two bands" not in text and "after its updates" not in text
    assert "With one mini-batch per step it stays at 1" in text


def test_lines_of_similar_colours_have_different_dashes(world: World, measured: Job) -> None:
    figures = charts(job_page(measured.id, "Exploration"))
    for name in ("rareness", "clip", "ratio"):
        lines = [trace["line"] for trace in figures[name]["data"] if trace.get("showlegend", True)]
        assert len({line["dash"] for line in lines}) == 3
    assert WRONG not in [trace["line"]["color"] for name in ("clip", "ratio") for trace in figures[name]["data"]]


def test_the_map_has_the_colours_of_the_runs_rewards(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "a")
    rewards = [{"type": "math", "weight": 1.0}, {"type": "format", "weight": 0.5}]
    world.change(measured, spec=measured.spec | {"rewards": rewards})
    (figure,) = charts(job_page(measured.id, "Map")).values()
    assert (figure["data"][0]["marker"]["cmin"], figure["data"][0]["marker"]["cmax"]) == (0, 1.5)


def test_groups_with_an_advantage_are_not_called_solved(world: World, measured: Job) -> None:
    """An unsolved group whose completions differ in their format has one as well."""
    traces = charts(job_page(measured.id, "Exploration"))["active-groups"]["data"]
    names = [trace["name"] for trace in traces if trace.get("showlegend", True)]
    assert names == ["non-zero advantage"]


def test_only_the_panel_on_show_asks_for_data(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "text")
    job_page(measured.id, "Log")
    asked = paths(world.requests)
    assert "log" in asked
    assert not asked & {"histograms", "samples", "checkpoints", "events"}
    metrics = [request for request in world.requests if "/metrics" in request]
    assert all("names=perf%2Fstep_seconds&" in request for request in metrics)  # the header's time left


def test_calibrated_quadrants_say_how_hard_they_are_pushed(world: World, measured: Job) -> None:
    text = html(job_page(measured.id, "Expert mismatch"))
    assert "Pushed down at full strength." in text
    assert "Pushed up at 0.5 × full strength." in text


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
    assert "Entropy +0.000 nats" in text


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


def test_a_failed_job_shows_why_with_the_end_of_its_log(world: World) -> None:
    message = "Traceback\nRuntimeError: <b>boom</b>"
    job = world.add(status=JobStatus.FAILED, reason=Reason.OUT_OF_MEMORY, message=message)
    app = job_page(job.id)
    assert app.error[0].value == "Failed: RuntimeError\\: \\<b\\>boom\\</b\\>"
    assert app.code[0].value == message
    assert "No metrics" in html(app)
    assert {button.key for button in app.button} == {"retry", "fork"}  # nothing is left to cancel


def test_a_running_job_can_be_cancelled(world: World) -> None:
    job = world.add()
    app = job_page(job.id)
    app.button(key="cancel").click().run()
    assert world.jobs[job.id].status == JobStatus.CANCELLING
    assert "cancelling" in html(finished(app))


@pytest.mark.parametrize(
    ("status", "offered"),
    [
        (JobStatus.QUEUED, {"pause", "cancel"}),
        (JobStatus.WAITING, {"pause", "cancel"}),
        (JobStatus.RUNNING, {"pause", "cancel"}),
        (JobStatus.PAUSING, {"cancel"}),
        (JobStatus.PAUSED, {"resume", "cancel"}),
        (JobStatus.CANCELLING, set()),
        (JobStatus.SUCCEEDED, set()),
        (JobStatus.FAILED, {"retry"}),
        (JobStatus.CANCELLED, {"retry"}),
    ],
)
def test_only_applicable_actions_are_offered(world: World, status: JobStatus, offered: set[str]) -> None:
    job = world.add(status=status)
    app = job_page(job.id, "Spec")
    assert {button.key for button in app.button} == {*offered, "fork"}
    assert f"{status.value}</span>" in html(app)
    assert f"{status.value}</span>" in html(jobs_page())


@pytest.mark.parametrize(
    ("status", "action", "to"),
    [
        (JobStatus.RUNNING, "pause", JobStatus.PAUSING),
        (JobStatus.PAUSED, "resume", JobStatus.QUEUED),
        (JobStatus.FAILED, "retry", JobStatus.QUEUED),
    ],
)
def test_a_requested_action_shows_at_once(world: World, status: JobStatus, action: str, to: JobStatus) -> None:
    job = world.add(status=status)
    app = job_page(job.id, "Spec")
    app.button(key=action).click().run()
    assert world.jobs[job.id].status == to
    assert f"{to.value}</span>" in html(finished(app))


def test_a_queued_job_says_why_it_waits_and_for_how_long(world: World) -> None:
    job = world.add(status=JobStatus.QUEUED, attempt=0, steps_total=None)
    world.wait(job, estimated_start=datetime.now(UTC) + timedelta(hours=2, minutes=30, seconds=30))
    text = html(job_page(job.id))
    assert "Queue position 2 · waiting for a free &lt;CPU&gt; slot" in text
    assert "estimated start in 2 h 30 min" in text
    assert "Not started yet" in text


def test_a_paused_job_keeps_its_progress_and_does_not_run(world: World) -> None:
    job = world.add(status=JobStatus.PAUSED)
    world.measure(job, range(1, 41))
    app = job_page(job.id)
    text = html(app)
    assert "40 of 280 steps" in text
    assert "running for" not in text
    assert " left" not in text
    assert charts(app)["reward"]["data"]


def test_a_waiting_job_names_its_dependency(world: World) -> None:
    first = world.add(name="the-warm-up")
    job = world.add(status=JobStatus.WAITING, attempt=0, steps_total=None, depends_on=[first.id])
    text = html(job_page(job.id))
    assert "Depends on" in text
    assert f"job?id={first.id}" in text
    assert "the-warm-up" in text
    assert "Not started yet" in text


def test_supervised_fine_tuning_shows_its_own_charts(world: World) -> None:
    job = world.add(spec={"kind": "train", "algorithm": {"type": "sft"}})
    world.measure(job, range(1, 31), {"expert/nll": 2.0, "loss/grad_norm": 1.0})
    figures = charts(job_page(job.id))
    assert figures.keys() == {"nll", "grad-norm"}  # the others have nothing to draw
    (panels,) = [group for group in job_page(job.id).button_group if group.key == "panel"]
    assert panels.options[:3] == ["Overview", "Health", "System"]


def test_log_events_and_spec_are_plain_text(world: World, measured: Job) -> None:
    hostile = "<script>alert(1)</script>"
    world.logs[measured.id] = hostile.encode()
    at = measured.created_at
    world.events[measured.id] = [
        Event(id=1, ts=at, type="warning", status=None, reason=None, actor=hostile, message=hostile)
    ]
    assert job_page(measured.id, "Log").code[0].value == hostile
    events = html(job_page(measured.id, "Events"))
    assert hostile not in events
    assert events.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "negative_slope: 0.5" in job_page(measured.id, "Spec").code[0].value


def test_names_and_labels_are_escaped(world: World) -> None:
    job = world.add(name="<i>x</i>", labels={"team": "<b>y</b>"})
    for text in (html(job_page(job.id)), html(jobs_page())):
        assert "<i>" not in text
        assert "&lt;i&gt;x&lt;/i&gt;" in text
    assert "&lt;b&gt;y&lt;/b&gt;" in html(job_page(job.id))


def test_the_spec_that_an_empty_list_shows_is_a_valid_one(world: World) -> None:
    spec = job_spec_adapter.validate_python(yaml.safe_load(jobs_page().code[0].value))
    assert spec.name == "my-first-job"


def test_a_step_with_fewer_groups_shows_its_first(world: World, measured: Job) -> None:
    for text in ("one ", "two "):
        world.keep_sample(measured, 10, text)
    world.keep_sample(measured, 20, "new ")
    app = job_page(measured.id, "Rollouts", step="10", group="2")
    assert "two " in html(app)
    app.selectbox(key="step").set_value("20").run()
    assert "new " in html(finished(app))
