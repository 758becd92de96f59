"""The new job page: the form, what would become of it, and what is sent."""

from typing import Any
from uuid import UUID

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from calibrl.schemas import JobPlan, JobStatus, Me, Role, job_spec_adapter
from tests.support.waiting import LIMIT_SECONDS

from .conftest import HOSTILE, Refusal, World
from .test_pages import NAVIGATION, finished, html

PLAN = {
    "spec": {},
    "data": [{"field": "data", "name": "train", "rows": 4096, "checked": 4096, "with_expert": 4096, "with_images": 7}],
    "memory": {
        "bytes": 2 * 2**30,
        "on": "host",
        "parameters": 1_200_000,
        "trained": 1_200_000,
        "parts": [{"name": "weights", "bytes": 4_800_000, "when": "always", "formula": "4 bytes a parameter"}],
        "fits": None,
        "explanation": "about 2 GiB",
    },
    "queue": {
        "position": 2,
        "reason": "busy",
        "explanation": "waiting for a free <CPU> slot",
        "estimated_start": None,
        "expected_seconds": 125.0,
        "slots": 1,
    },
    "warnings": [{"field": "steps", "message": "40 epochs over 64 rows"}],
}


@pytest.fixture
def planned(world: World) -> list[dict[str, Any]]:
    """The specs whose plan was asked for."""
    asked: list[dict[str, Any]] = []

    def plan(spec: dict[str, Any]) -> Any:
        asked.append(spec)
        return JobPlan.model_validate(PLAN | {"spec": spec}).model_dump(mode="json")

    world.answers["POST /v1/jobs:plan"] = plan
    return asked


def new_page() -> AppTest:
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.run()  # only then does a page have its own address
    app.switch_page("app_pages/new_job.py")
    return finished(app.run())


def submit_button(app: AppTest) -> Any:
    return next(button for button in app.button if button.label == "Submit job")


def test_the_plan_of_the_preset_is_shown(planned: list[dict[str, Any]]) -> None:
    app = new_page()
    assert job_spec_adapter.validate_python(planned[-1]).name == "digits-calibrl"
    text = html(app)
    assert "Queued, position 2" in text and "waiting for a free &lt;CPU&gt; slot" in text and "2 min 05 s" in text
    assert ">4,096<" in text and "7 of 4,096" in text and "2.0 GiB" in text
    assert "40 epochs over 64 rows" in text
    assert not submit_button(app).disabled


def test_the_plan_follows_the_form_and_both_texts_say_the_same(planned: list[dict[str, Any]]) -> None:
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(17)
    finished(app.run())
    assert planned[-1]["steps"] == 17
    as_yaml, as_curl = (block.value for block in app.code)
    assert yaml.safe_load(as_yaml) == planned[-1]
    assert '"steps": 17' in as_curl and "$CALIBRL_API_URL/v1/jobs" in as_curl
    assert "temperature" not in as_yaml  # a default


def test_another_preset_resets_the_form(planned: list[dict[str, Any]]) -> None:
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(17)
    app.run()
    app.selectbox(key="preset").set_value("sft")
    finished(app.run())
    assert (planned[-1]["name"], planned[-1]["steps"]) == ("digits-warm-up", 800)


def test_earlier_input_is_restored(planned: list[dict[str, Any]]) -> None:
    """After a look at an evaluation, at another algorithm, at a section that was left out, and at another page."""
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(17)
    app.number_input(key="new-calibrl:algorithm:calibrl.guidance_coef").set_value(0.25)
    finished(app.run())
    app.segmented_control(key="kind").set_value("Evaluation")
    finished(app.run())
    assert app.text_input(key="new-evaluate:name").value == "my-evaluation"
    app.segmented_control(key="kind").set_value("Training")
    finished(app.run())
    app.selectbox(key="new-calibrl:algorithm").set_value("grpo")
    finished(app.run())
    assert planned[-1]["algorithm"]["type"] == "grpo"
    app.selectbox(key="new-calibrl:algorithm").set_value("calibrl")
    finished(app.run())
    app.switch_page("app_pages/queue.py")
    app.run()
    app.switch_page("app_pages/new_job.py")
    finished(app.run())
    spec = yaml.safe_load(app.code[0].value)
    assert (spec["steps"], spec["algorithm"]) == (17, {"type": "calibrl", "mini_batches": 1, "guidance_coef": 0.25})
    assert not app.warning


def test_a_refusal_is_at_its_field_and_blocks_the_submission(world: World) -> None:
    errors = ({"field": "optimizer.lr", "message": f"is too large {HOSTILE}"},)
    world.answers["POST /v1/jobs:plan"] = lambda spec: Refusal(422, "1 field can't be accepted.", errors)
    app = new_page()
    text = html(app)
    assert text.count("is too large") == 2  # at the field, and where the plan would be
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert submit_button(app).disabled


def test_a_field_that_is_empty_is_named_without_asking(planned: list[dict[str, Any]]) -> None:
    app = new_page()
    asked = len(planned)
    app.text_input(key="new-calibrl:name").set_value("")
    text = html(finished(app.run()))
    assert text.count("Required") == 2
    assert len(planned) == asked


def test_submitting_leads_to_the_job(world: World, planned: list[dict[str, Any]]) -> None:
    sent: list[dict[str, Any]] = []

    def submit(spec: dict[str, Any]) -> Any:
        sent.append(spec)
        return world.add(name=spec["name"], status=JobStatus.QUEUED, started_at=None).model_dump(mode="json")

    world.answers["POST /v1/jobs"] = submit
    app = new_page()
    app.text_input(key="new-calibrl:name").set_value("my own")
    app.run()
    submit_button(app).click()
    app.run()
    assert [spec["name"] for spec in sent] == ["my own"]
    assert sent[0] == planned[-1]
    assert app.query_params["id"] == str(next(iter(world.jobs)))


def test_an_evaluation_of_the_newest_training(world: World, planned: list[dict[str, Any]]) -> None:
    job = world.add(name="trained", status=JobStatus.SUCCEEDED)
    app = new_page()
    app.button_group(key="kind").set_value("Evaluation")
    finished(app.run())
    spec = planned[-1]
    assert (spec["kind"], spec["models"]) == ("evaluate", [{"from_job": str(job.id)}])
    assert spec["data"] == [{"builtin": "digits", "split": "test"}]
    next(button for button in app.button if button.label == "Add model").click()
    finished(app.run())
    assert [UUID(model["from_job"]) for model in planned[-1]["models"]] == [job.id, job.id]


def test_only_projects_of_members_are_offered(world: World, planned: list[dict[str, Any]]) -> None:
    roles = {"looked-at": Role.VIEWER, "worked-in": Role.MEMBER}
    world.me = Me(user="ann", admin=False, scope="write", projects=roles)
    assert new_page().selectbox(key="new-calibrl:project").options == ["worked-in"]


@pytest.mark.parametrize(("scope", "role"), [("read", Role.ADMIN), ("write", Role.VIEWER)])
def test_those_who_may_only_look_get_no_form(world: World, scope: Any, role: Role) -> None:
    world.me = Me(user="ann", admin=False, scope=scope, projects={"default": role})
    app = new_page()
    assert "Read-only" in html(app)
    assert not app.number_input
    assert not any(button.label == "New job" for button in jobs_page_buttons())


def jobs_page_buttons() -> Any:
    return finished(AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS).run()).button


def test_the_jobs_list_leads_here(world: World, planned: list[dict[str, Any]]) -> None:
    assert any(button.label == "New job" for button in jobs_page_buttons())
