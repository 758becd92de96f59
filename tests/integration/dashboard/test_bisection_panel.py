"""The result of a bisection on the page of its job, the button that submits one, and forks of the training."""

import pytest

from calibrl.schemas import Job, JobStatus
from tests.support.bisections import bisection_result, fired, group
from tests.support.dashboard.pages import finished, html, job_page
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration


def bisected(world: World, training: Job, **changes: object) -> Job:
    kept = [{"from_job": str(training.id), "checkpoint": step} for step in (50, 100)]
    return world.add(kind="bisect", status=JobStatus.SUCCEEDED, result=bisection_result(**changes), spec={"kept": kept})


def test_update_groups_and_probes_are_shown(world: World, measured: Job) -> None:
    text = html(job_page(bisected(world, measured).id))
    assert "Reward without accuracy fired at step 90" in text
    assert "<b>Step 60</b> is the first bad update: gradient norm 3" in text
    for part in ("gradient norm 2.5", "1 of 4 passed", "60 (taken again)", "-0.475 to -0.275", "✕ worse"):
        assert part in text
    assert "No checkpoint is worse" in html(job_page(bisected(world, measured, first_bad=None, update=None).id))


def test_text_of_groups_is_no_markup(world: World, measured: Job) -> None:
    hostile = group(prompt=HOSTILE, prompt_id=HOSTILE, completion=HOSTILE)
    update = bisection_result()["update"] | {"groups": [hostile]}
    assert "<script>" not in html(job_page(bisected(world, measured, update=update).id))


def test_a_fork_has_the_change_and_the_last_good_checkpoint(world: World, measured: Job) -> None:
    world.keep_checkpoint(measured, 50)
    app = job_page(bisected(world, measured).id)
    app.button(key="fork-1").click().run()
    new = world.named(f"{measured.name}-fork")
    assert (new.spec["prompts_per_step"], new.spec["model"]["checkpoint"]) == (16, 50)
    assert finished(app).query_params["id"] == str(new.id)


def test_an_alert_has_a_button_that_explains_it(world: World, measured: Job) -> None:
    world.alert(measured, fired("reward_not_accuracy", 90))
    app = job_page(measured.id, panel="Health")
    app.button(key="bisect-reward_not_accuracy").click().run()
    assert "keeps no checkpoints, and a bisection needs two" in " ".join(one.value for one in app.text)
