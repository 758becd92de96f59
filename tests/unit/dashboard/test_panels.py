"""Texts beside the charts in the panels of a job's page, and their actions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Checkpoint, Event, Gpu, Job, JobStatus, Me, Role, TrainSpec
from dashboard.panels.health import rule_changes
from dashboard.reads import service
from dashboard.views.spec_diff import ChangedField, changed_fields, ordered
from tests.support.waiting import LIMIT_SECONDS

from .conftest import BEGAN, HOSTILE, KEY
from .test_pages import charts, finished, html, job_page, jobs_page, paths
from .test_queue_page import machine

if TYPE_CHECKING:
    from .conftest import World

FIRED = (
    "entropy_collapse fired at step 30: over the last 10 steps the entropy was 0.01 nats per token; the run began with "
    "0.5 (limit 0.05). Lower optimizer.lr, raise algorithm.clip_high, or set algorithm.entropy_coef."
)
CLEARED = "entropy_collapse cleared at step 45: over the last 10 steps the entropy was 0.2 nats per token."


@pytest.fixture
def measured(world: World) -> Job:
    job = world.add()
    world.measure(job, range(1, 101))
    return job


def event(number: int, message: str, type: str = "health") -> Event:
    return Event(id=number, ts=BEGAN, type=type, status=None, reason=None, actor="worker", message=message)


def checkpoint(step: int, *, best: bool = False) -> Checkpoint:
    metrics: dict[str, float | str] = {"validation/accuracy": 0.6}
    return Checkpoint(step=step, path=f"/runs/step-{step}", best=best, metrics=metrics, created_at=BEGAN)


def test_a_firing_rule_is_shown_first_with_its_remedy(world: World, measured: Job) -> None:
    world.events[measured.id] = [event(1, FIRED), event(2, HOSTILE, "warning")]
    app = job_page(measured.id, "Health")
    text = html(app)
    assert "✕ Firing" in text
    assert "Fired at step 30" in text
    assert "The entropy was" not in text
    assert "Over the last 10 steps the entropy was 0.01 nats per token; the run began with 0.5 (limit 0.05)." in text
    assert "Lower optimizer.lr" in text
    assert text.index("Entropy collapse") < text.index("No advantage")
    assert text.count("✓ OK") == 4
    assert "<script>" not in text
    assert app.caption[0].value.startswith("1 active alert.")


def test_a_rule_that_cleared_is_quiet_again(world: World, measured: Job) -> None:
    world.events[measured.id] = [event(1, FIRED), event(2, CLEARED), event(3, "words of another form")]
    assert "✓ Resolved" in html(job_page(measured.id, "Health"))
    assert [(alert.fired, alert.step) for alert in rule_changes(world.events[measured.id])] == [
        (True, "30"),
        (False, "45"),
    ]


def test_the_system_panel_shows_the_gpus_that_the_job_holds(world: World, measured: Job) -> None:
    held, other = (
        Gpu(index=index, name="H100", uuid=f"GPU-{index}", memory_total=80 * 2**30, memory_used=20 * 2**30,
            utilisation=93.0, job_id=job, clean=True)
        for index, job in enumerate((measured.id, uuid4()))
    )  # fmt: skip
    world.workers.append(machine(gpus=[held, other], jobs=[measured.id]))
    text = html(job_page(measured.id, "System"))
    assert "Runs on machine-1" in text
    assert "93 %" in text
    assert text.count("20.0 of 80 GiB") == 1


def test_files_are_links_with_their_sizes(world: World, measured: Job) -> None:
    world.checkpoints[measured.id] = [checkpoint(50, best=True), checkpoint(100)]
    judged = world.add(name="judges-it", kind="evaluate", depends_on=[measured.id])
    text = html(job_page(measured.id, "Files"))
    assert f'href="files/{measured.id}/checkpoint-50.tar"' in text
    assert "Download, 6.4 MB" in text
    assert text.index("Step 100") < text.index("Step 50")
    assert "accuracy 60.0%" in text
    assert f'href="job?id={judged.id}"' in text
    for file in ("metrics.csv", "metrics.parquet", "tensorboard", "log.txt"):
        assert f'href="files/{measured.id}/{file}" download' in text


def test_a_log_is_searched(world: World, measured: Job) -> None:
    world.logs[measured.id] = b"step 1 fine\nWARNING: <b>odd</b>\nstep 2 fine\n"
    app = job_page(measured.id, "Log")
    app.text_input(key="log_search").set_value("warning").run()
    assert finished(app).code[0].value == "WARNING: <b>odd</b>"
    assert "1 matching line" in html(app)


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
    world.checkpoints[measured.id] = [checkpoint(50, best=True)]
    assert (
        job_page(measured.id, "Spec").button(key="fork").click().run().text_area[0].label.startswith("Config overrides")
    )
    app = fork_form(str(measured.id))
    assert app.selectbox[0].options == ["Best", "Latest", "Step 50"]
    app.text_input[0].set_value("slower")
    app.text_area[0].set_value("optimizer: {lr: 1.0e-5}")
    app.button(key="fork-submit").click().run()
    new = next(job for job in world.jobs.values() if job.name == "slower")
    assert finished(app).query_params["id"] == str(new.id)


def test_without_a_checkpoint_there_is_nothing_to_begin_with(world: World, measured: Job) -> None:
    assert "no checkpoint yet" in fork_form(str(measured.id)).markdown[0].value


def test_an_error_of_a_fork_is_at_its_field(world: World, measured: Job) -> None:
    world.checkpoints[measured.id] = [checkpoint(50)]
    app = fork_form(str(measured.id))
    app.text_area[0].set_value("steps: 0")
    app.button(key="fork-submit").click().run()
    assert "steps" in [block.value for block in finished(app).code]
    assert "<b>at least 1</b>" in [text.value for text in app.text]
    for text, said in (("[**bold**", "Invalid YAML"), ("- the __bold__", "Write fields of the config")):
        app.text_area[0].set_value(text)
        app.button(key="fork-submit").click().run()
        assert finished(app).code[0].value.startswith(said)
        assert not app.error and not any("bold" in each.value for each in app.markdown)


def test_a_fork_is_not_offered_to_those_who_may_only_look(world: World, measured: Job) -> None:
    world.me = Me(user="eve", admin=False, scope="write", projects={"default": Role.VIEWER})
    assert not [button for button in job_page(measured.id, "Spec").button if button.key == "fork"]


def test_the_overview_shows_a_jobs_parents_and_children(world: World) -> None:
    warm_up = world.add(
        name="the-warm-up", status=JobStatus.SUCCEEDED, spec={"kind": "train", "model": {"builtin": "tiny-vlm"}}
    )
    spec = {"kind": "train", "model": {"from_job": str(warm_up.id), "checkpoint": "best"}}
    job = world.add(name="the-run", spec=spec, depends_on=[warm_up.id])
    fork = world.add(name="the-fork", forked_from=job.id, forked_step=50)
    text = html(job_page(job.id))
    places = [text.index(name) for name in ("tiny-vlm", "the-warm-up", "the-run</b>", "the-fork")]
    assert places == sorted(places)
    assert f'href="job?id={warm_up.id}"' in text
    assert f'href="job?id={fork.id}"' in text


def test_values_other_than_defaults_are_marked(world: World) -> None:
    given = {
        "kind": "train",
        "name": "x",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "calibrl", "negative_slope": 0.25},
        "prompts_per_step": 8,
        "steps": 20,
    }
    spec = TrainSpec.model_validate(given).model_dump(mode="json")
    found = {row.field: row for row in changed_fields(spec)}
    assert found["algorithm.negative_slope"] == ChangedField("algorithm.negative_slope", "0.25", "0.5")
    assert found["model.builtin"].default is None
    assert not {"optimizer.lr", "name", "algorithm.type"} & found.keys()
    text = html(job_page(world.add(spec=spec).id, "Spec"))
    assert "<code>algorithm.negative_slope</code>" in text


def test_the_list_is_searched_sorted_and_filtered_by_label(world: World) -> None:
    world.add(name="zebra", labels={"team": "vision"})
    world.add(name="aardvark")
    app = jobs_page()
    app.selectbox(key="sort").set_value("name").run()
    text = html(finished(app))
    assert text.index("aardvark") < text.index("zebra")
    assert "team: vision" in text
    app.text_input(key="label").set_value("team:vision").run()
    assert "aardvark" not in html(finished(app))
    app.text_input(key="q").set_value("nothing like it").run()
    assert "No jobs match these filters" in html(finished(app))


def test_rows_have_small_curves_in_one_call(world: World) -> None:
    for name in ("one", "two"):
        world.measure(world.add(name=name), range(1, 101))
    world.requests.clear()
    text = html(jobs_page())
    assert text.count("data:image/svg+xml") == 4
    assert 'alt="entropy of one"' in text
    assert len([path for path in world.requests if path.startswith("/v1/metrics")]) == 1
    assert paths(world.requests) == {"jobs", "metrics", "me", "projects"}  # the last two: who may submit jobs


def test_several_jobs_are_picked_to_compare(world: World) -> None:
    first, second = world.add(name="one"), world.add(name="two")
    app = jobs_page()
    app.multiselect(key="compare").set_value([first.id, second.id]).run()
    assert finished(app).multiselect(key="compare").value == [first.id, second.id]


def test_a_spec_is_shown_in_the_order_of_its_model() -> None:
    least = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 9}
    spec = TrainSpec.model_validate(least | {"algorithm": {"type": "grpo", "clip_low": 0.1}}).model_dump(mode="json")
    shuffled = {name: spec[name] for name in sorted(spec)}
    shuffled["algorithm"] = {name: spec["algorithm"][name] for name in sorted(spec["algorithm"])}
    assert list(ordered(shuffled)) == list(spec) != list(shuffled)
    assert list(ordered(shuffled)["algorithm"]) == list(spec["algorithm"])
    assert changed_fields(shuffled) == changed_fields(spec)
    assert ordered({"kind": "train", "b": 1, "a": 2}) == {"kind": "train", "b": 1, "a": 2}


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
    world: World, measured: Job, monkeypatch: pytest.MonkeyPatch, status: JobStatus
) -> None:
    from jobs.settings import get_settings

    world.change(measured, status=status)
    world.keep_sample(measured, 10, "secr")
    world.keys = {KEY, "another"}
    assert "secr" in html(panel_alone(world.jobs[measured.id]))
    monkeypatch.setenv("CALIBRL_API_KEY", "another")
    get_settings.cache_clear()
    assert "secr" in html(panel_alone(world.jobs[measured.id]))
    world.keys.remove("another")
    time.sleep(service.FRESH + 0.1)
    app = panel_alone(world.jobs[measured.id])
    assert "secr" not in html(app)
    assert [header.value for header in app.subheader] == ["API key revoked or expired"]
    monkeypatch.setenv("CALIBRL_API_KEY", KEY)
    get_settings.cache_clear()
    assert "secr" in html(panel_alone(world.jobs[measured.id]))


def test_a_failing_service_leaves_earlier_data_on_the_page(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "secr")
    panel_alone(measured)
    world.fails = True
    time.sleep(service.FRESH + 0.1)
    app = panel_alone(measured)
    assert "secr" in html(app)
    assert app.warning[0].value.startswith("API error. Retrying")


def test_weights_are_shown_by_outcome(world: World, measured: Job) -> None:
    app = job_page(measured.id, "Exploration")
    of_all = charts(app)["heat-rareness"]["data"]
    world.requests.clear()
    app.button_group(key="heat-rareness-of").set_value("wrong").run()
    assert any("name=rareness%2Fwrong" in request for request in world.requests)
    assert charts(finished(app))["heat-rareness"]["data"] != of_all
    app = job_page(measured.id, "Expert mismatch")
    app.button_group(key="heat-expert-gap-of").set_value("correct").run()
    assert any("name=expert%2Fgap_correct" in request for request in world.requests)
