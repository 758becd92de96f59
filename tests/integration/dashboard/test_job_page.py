"""Head of a job's page: its status, progress, queue position, dependencies and actions."""

from datetime import UTC, datetime, timedelta

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Job, JobStatus, Reason
from dashboard.reads import live, service
from dashboard.views import job_head
from tests.support.dashboard.pages import charts, finished, forget_reads, html, job_page, jobs_page
from tests.support.dashboard.world import World
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def test_a_failed_job_shows_why_with_the_end_of_its_log(world: World) -> None:
    message = "Traceback\nRuntimeError: <b>boom</b>"
    job = world.add(status=JobStatus.FAILED, reason=Reason.OUT_OF_MEMORY, message=message)
    app = job_page(job.id)
    assert app.error[0].value == "Failed: RuntimeError\\: \\<b\\>boom\\</b\\>"
    assert app.code[0].value == message
    assert "No metrics" in html(app)
    assert {button.key for button in app.button} == {
        "retry",
        "evaluate",
        "clone",
        "edit",
        "fork",
        "what-if",
    }  # nothing is left to cancel


def test_a_running_job_can_be_cancelled(world: World) -> None:
    job = world.add()
    app = job_page(job.id)
    app.button(key="cancel").click().run()
    assert world.job(job.id).status == JobStatus.CANCELLING
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
        (JobStatus.SUCCEEDED, {"reproduce"}),
        (JobStatus.FAILED, {"retry"}),
        (JobStatus.CANCELLED, {"retry"}),
    ],
)
def test_only_applicable_actions_are_offered(world: World, status: JobStatus, offered: set[str]) -> None:
    job = world.add(status=status)
    app = job_page(job.id, "Spec")
    always = {"clone", "edit", "fork", "what-if", *(["evaluate"] if job.attempt else [])}
    assert {button.key for button in app.button} == {*offered, *always}
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
    assert world.job(job.id).status == to
    assert f"{to.value}</span>" in html(finished(app))


def test_a_queued_job_says_why_it_waits_and_for_how_long(world: World) -> None:
    """The only slot is held by a job that needed 36,180 s for 280 of 350 steps: 9045 s are left."""
    running = world.add(started_at=datetime.now(UTC) - timedelta(seconds=36_180), step=280, steps_total=350)
    world.hold(running, world.machine(cpu_slots=1))
    job = world.add(status=JobStatus.QUEUED)
    text = html(job_page(job.id))
    assert "Queue position 1 · waiting for a free CPU slot" in text
    assert "estimated start in 2 h 30 min" in text
    assert "Not started yet" in text


def test_the_reason_of_a_wait_is_escaped(world: World) -> None:
    job = world.add(status=JobStatus.QUEUED, spec={"resources": {"labels": {"gpu": "<b>"}}})
    assert "no online machine labelled gpu=&lt;b&gt; has a CPU slot" in html(job_page(job.id))


def test_a_paused_job_keeps_its_progress_and_does_not_run(world: World) -> None:
    job = world.add(status=JobStatus.PAUSED)
    world.measure(job, range(1, 41))
    app = job_page(job.id)
    text = html(app)
    assert "40 of 280 steps" in text
    assert "running for" not in text
    assert " left" not in text
    assert charts(app)["reward"]["data"]


def test_duration_and_time_left_count_running_time(world: World) -> None:
    """Steps of 1 s. 100 steps, then a pause of an hour, and 5 more steps of 280: 105 s of work, 175 s are left."""
    job = world.add(attempt=2)
    world.run(job, (0, 100), (3700, None))
    world.measure(job, range(1, 101), {"perf/step_seconds": 1.0})
    world.measure(job, range(101, 106), {"perf/step_seconds": 1.0}, later=3600)
    assert "105 of 280 steps, about 2 min 55 s left" in html(job_page(job.id))
    world.change(job, status=JobStatus.CANCELLED)
    world.run(job, (0, 100), (3700, 3705))
    forget_reads()
    for page in (job_page(job.id), jobs_page()):
        assert "1 min 45 s" in html(page)


def test_the_time_left_after_a_retry_is_known_at_its_first_step(world: World) -> None:
    job = world.add(attempt=2)
    world.run(job, (0, 100), (3700, None))
    world.measure(job, range(1, 101), {"perf/step_seconds": 1.0})
    assert "100 of 280 steps, about 3 min 00 s left" in html(job_page(job.id))


def test_a_waiting_job_names_its_dependency(world: World) -> None:
    first = world.add(name="the-warm-up")
    job = world.add(status=JobStatus.WAITING, depends_on=[first.id])
    text = html(job_page(job.id))
    assert "Depends on" in text
    assert f"job?id={first.id}" in text
    assert "the-warm-up" in text
    assert "Not started yet" in text


def test_a_dependency_that_succeeded_is_not_waited_for(world: World) -> None:
    done, open_one = world.add(name="done", status=JobStatus.SUCCEEDED), world.add(name="still-open")
    job = world.add(status=JobStatus.WAITING, depends_on=[done.id, open_one.id])
    text = html(job_page(job.id))
    assert "Depends on" in text and "still-open" in text and ">done<" not in text
    world.change(open_one, status=JobStatus.SUCCEEDED)
    forget_reads()
    assert "Depends on" not in html(job_page(job.id))


@pytest.mark.parametrize(
    ("status", "effect"),
    [
        (JobStatus.QUEUED, "The job has not started. It leaves the queue."),
        (JobStatus.RUNNING, "The trainer saves a checkpoint and stops."),
        (JobStatus.PAUSED, "The job does not run now. Its files up to step 0 stay."),
    ],
)
def test_the_effect_of_a_cancel_depends_on_the_status(world: World, status: JobStatus, effect: str) -> None:
    app = job_page(world.add(status=status).id, "Spec")
    assert any(text.value.startswith(effect) for text in app.markdown)


def test_the_tab_has_name_and_progress(world: World) -> None:
    running = world.add(name="mine", step=70)
    assert job_head.tab_title(running) == "mine · 25% · CalibRL"  # 70 of 280 steps
    assert job_head.tab_title(world.change(running, status=JobStatus.FAILED)) == "mine · failed · CalibRL"


def head_and_panel(job: Job) -> AppTest:
    """The live parts of a job's page, as a tick draws them."""

    def script(record: str) -> None:
        from calibrl.schemas import Job
        from dashboard.panels import common, overview
        from dashboard.views import job_head

        job = Job.model_validate_json(record)
        job_head.draw(job, 1)
        common.draw_live(job, overview._reinforcement)

    return finished(AppTest.from_function(script, args=(job.model_dump_json(),), default_timeout=LIMIT_SECONDS).run())


def test_the_head_stays_with_one_warning_if_the_api_fails(
    world: World, measured: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    head_and_panel(measured)
    world.fails = True
    monkeypatch.setattr(live, "FRESH", 0.0)
    service.clear_job_caches()
    app = head_and_panel(measured)
    assert measured.name in html(app) and "running</span>" in html(app)
    assert [warning.value.partition(".")[0] for warning in app.warning] == ["API error"]


def test_a_hanging_api_is_noticed(world: World, measured: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LIVE_SECONDS", 0.2)
    head_and_panel(measured)
    world.hangs = True
    monkeypatch.setattr(live, "FRESH", 0.0)
    service.clear_job_caches()
    app = head_and_panel(measured)
    assert measured.name in html(app)
    assert [warning.value.partition(".")[0] for warning in app.warning] == ["API unreachable"]


def test_an_early_stop_is_named(world: World) -> None:
    validation = {"data": {"builtin": "digits", "split": "test"}, "stop_at_accuracy": 0.4}
    job = world.add(status=JobStatus.SUCCEEDED, step=230, steps_total=230, spec={"validation": validation})
    assert "Stopped early at 230 of 280 steps: validation accuracy reached 40%" in html(job_page(job.id, "Spec"))
    world.change(job, step=280, steps_total=280)
    forget_reads()
    assert "280 of 280 steps" in html(job_page(job.id, "Spec"))


def test_an_unknown_panel_in_the_url_is_named(world: World) -> None:
    job = world.add()
    app = job_page(job.id, "Nonsense")
    (warning,) = app.warning
    shown = warning.value.replace("\\", "")
    assert shown == "The URL asks for panel 'Nonsense', which does not exist. Shown: Overview."
    assert not job_page(job.id, "spec").warning and job_page(job.id, "spec").session_state["panel"] == "Spec"


def test_names_and_labels_are_escaped(world: World) -> None:
    job = world.add(name="<i>x</i>", labels={"team": "<b>y</b>"})
    for text in (html(job_page(job.id)), html(jobs_page())):
        assert "<i>" not in text
        assert "&lt;i&gt;x&lt;/i&gt;" in text
    assert "&lt;b&gt;y&lt;/b&gt;" in html(job_page(job.id))
