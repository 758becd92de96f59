"""Panels of records on a job's page: health, log, files, events, spec, and the lineage on the overview."""

import pytest

from calibrl.schemas import HealthAlert, Job, JobStatus
from calibrl_core.health import RULES
from dashboard.reads import live
from dashboard.views.spec_diff import ChangedField, changed_fields
from tests.support.dashboard.pages import charts, finished, forget_reads, html, job_page, jobs_page
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration

FIRED = HealthAlert(
    rule="entropy_collapse",
    state="fired",
    step=30,
    message="over the last 10 steps the entropy was 0.01 nats per token; the run began with 0.5 (limit 0.05)",
    suggestion="Lower optimizer.lr, raise algorithm.clip_high, or set algorithm.entropy_coef.",
)
TRUNCATED = HealthAlert(
    rule="all_truncated",
    state="fired",
    step=60,
    message="over the last 10 steps 99 % of the completions were truncated",
    suggestion="",
)
CLEARED = FIRED.model_copy(update={"state": "cleared", "step": 45, "suggestion": ""})


def test_a_firing_rule_is_shown_first_with_its_remedy(world: World, measured: Job) -> None:
    world.alert(measured, FIRED)
    world.note(measured, HOSTILE)
    app = job_page(measured.id, "Health")
    text = html(app)
    assert "✕ Firing" in text
    assert "Fired at step 30" in text
    assert "The entropy was" not in text
    assert "Over the last 10 steps the entropy was 0.01 nats per token; the run began with 0.5 (limit 0.05)." in text
    assert "Lower optimizer.lr" in text
    assert text.index("Entropy collapse") < text.index("No advantage")
    assert text.count("✓ OK") == len(RULES) - 1
    assert "<script>" not in text
    assert app.caption[0].value.startswith("1 active alert.")


def test_a_rule_that_cleared_is_quiet_again(world: World, measured: Job) -> None:
    for alert in (FIRED, CLEARED):
        world.alert(measured, alert)
    assert "✓ Resolved" in html(job_page(measured.id, "Health"))
    assert [event.alert for event in live.events(measured.id).events if event.type == "health"] == [FIRED, CLEARED]


def test_alerts_of_alert_rules_have_their_names_and_no_mark_of_lost_steps(world: World, measured: Job) -> None:
    low = HealthAlert(rule="low", state="fired", step=6, message="loss/total was below 1", suggestion="")
    for changes in ({}, {"state": "cleared", "step": 2}, {"step": 3}):  # the run went back to step 2
        world.alert(measured, low.model_copy(update=changes))
    page = html(job_page(measured.id, "Health"))
    assert "Active health alerts: <b>low</b>" in page and "loss/total was below 1." in page
    entropy = charts(job_page(measured.id, "Exploration"))["entropy"]
    assert [shape["x0"] for shape in entropy["layout"]["shapes"]] == [3]


def test_active_alerts_are_seen_in_head_list_and_charts(world: World, measured: Job) -> None:
    world.alert(measured, FIRED)
    world.alert(measured, TRUNCATED)
    head = html(job_page(measured.id, "Log"))
    assert "Active health alerts: <b>Entropy collapse, All truncated</b>" in head
    assert 'content:"2"' in head and "panel=Health" in head
    assert "! 2 alerts" in html(jobs_page())
    entropy = charts(job_page(measured.id, "Exploration"))["entropy"]
    assert [shape["x0"] for shape in entropy["layout"]["shapes"]] == [30, 60]
    assert entropy["data"][-1]["text"] == ["health alert: Entropy collapse", "health alert: All truncated"]
    world.alert(measured, CLEARED)
    forget_reads()
    assert "! 1 alert<" in html(jobs_page())
    world.alert(measured, TRUNCATED.model_copy(update={"state": "cleared"}))
    assert world.job(measured.id).alerts == []
    forget_reads()
    assert 'role="alert"' not in html(job_page(measured.id, "Log"))


def test_files_are_links_with_their_sizes(world: World, measured: Job) -> None:
    world.keep_checkpoint(measured, 50, best=True)
    world.keep_checkpoint(measured, 100)
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
    world.log(measured, b"step 1 fine\nWARNING: <b>odd</b>\nstep 2 fine\n")
    app = job_page(measured.id, "Log")
    app.text_input(key="log_search").set_value("warning").run()
    assert finished(app).code[0].value == "WARNING: <b>odd</b>"
    assert "1 matching line" in html(app)


def test_log_events_and_spec_are_plain_text(world: World, measured: Job) -> None:
    hostile = "<script>alert(1)</script>"
    world.log(measured, hostile.encode())
    world.note(measured, hostile, actor=hostile)
    assert job_page(measured.id, "Log").code[0].value == hostile
    events = html(job_page(measured.id, "Events"))
    assert hostile not in events
    assert events.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "negative_slope: 0.5" in job_page(measured.id, "Spec").code[0].value


def test_the_overview_shows_a_jobs_parents_and_children(world: World) -> None:
    warm_up = world.add(name="the-warm-up", status=JobStatus.SUCCEEDED)
    start = {"from_job": str(warm_up.id), "checkpoint": "best"}
    job = world.add(name="the-run", spec={"model": start}, depends_on=[warm_up.id])
    fork = world.add(name="the-fork", forked_from=job.id, forked_step=50)
    text = html(job_page(job.id))
    places = [text.index(name) for name in ("tiny-vlm", "the-warm-up", "the-run</b>", "the-fork")]
    assert places == sorted(places)
    assert f'href="job?id={warm_up.id}"' in text
    assert f'href="job?id={fork.id}"' in text
    assert ">the-warm-up</a>" in html(job_page(job.id, "Spec"))


def test_values_other_than_defaults_are_marked(world: World) -> None:
    job = world.add(spec={"algorithm": {"type": "calibrl", "negative_slope": 0.25}})
    found = {row.field: row for row in changed_fields(job.spec)}
    assert found["algorithm.negative_slope"] == ChangedField("algorithm.negative_slope", "0.25", "0.5")
    assert found["model.builtin"].default is None
    assert not {"optimizer.lr", "name", "algorithm.type", "model.attention", "data.weight"} & found.keys()
    assert "<code>algorithm.negative_slope</code>" in html(job_page(job.id, "Spec"))
