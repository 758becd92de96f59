"""The new job page: the form, its plan, and the submitted spec."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import yaml
from pydantic import BaseModel
from streamlit.testing.v1 import AppTest

from calibrl.schemas import EvaluateSpec, JobStatus, Role, TrainSpec, job_spec_adapter
from calibrl.schemas import Scope as KeyScope
from dashboard.reads import catalogue, service
from dashboard.reads.catalogue import MAX_OPTIONS
from tests.support.dashboard.pages import finished, html, jobs_page, open_page, press
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration
PLAN = "POST /v1/jobs:plan"


def new_page() -> AppTest:
    return open_page("new_job")


def submit_button(app: AppTest) -> Any:
    return next(button for button in app.button if button.label == "Submit job")


def test_the_plan_of_the_preset_is_shown(world: World) -> None:
    """The only slot is held, another job waits, and a job of the project took 125 s."""
    ended = datetime.now(UTC)
    world.add(status=JobStatus.SUCCEEDED, started_at=ended - timedelta(seconds=125), finished_at=ended)
    world.hold(world.add(), world.machine(cpu_slots=1))
    world.add(status=JobStatus.QUEUED)
    app = new_page()
    assert job_spec_adapter.validate_python(world.asked(PLAN)[-1]).name == "digits-calibrl"
    text = html(app)
    assert "Queued, position 2" in text and "waiting for a free CPU slot" in text and "2 min 05 s" in text
    assert "First train with the preset sft" in text  # the preset starts from random weights
    assert text.count(">4,096<") == 3  # all rows have an expert and an image
    assert not submit_button(app).disabled


def test_the_plan_follows_the_form_and_both_texts_say_the_same(world: World) -> None:
    """20,000 steps of 8 prompts are 39.06 epochs over 4,096 rows."""
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(20_000)
    finished(app.run())
    sent = world.asked(PLAN)[-1]
    assert sent["steps"] == 20_000
    assert "39 epochs over 4,096 rows" in html(app)
    as_yaml, as_curl = (block.value for block in app.code)
    assert yaml.safe_load(as_yaml) == sent
    assert '"steps": 20000' in as_curl and "$CALIBRL_API_URL/v1/jobs" in as_curl
    assert "temperature" not in as_yaml  # a default


@pytest.mark.parametrize(("kind", "spec"), [("Training", TrainSpec), ("Evaluation", EvaluateSpec)])
def test_the_form_has_every_field_of_the_spec(world: World, kind: str, spec: type[BaseModel]) -> None:
    app = new_page()
    if kind == "Evaluation":
        app.segmented_control(key="kind").set_value(kind)
        finished(app.run())
    drawn = " ".join(str(widget.key) for widget in app.main if getattr(widget, "key", None))
    missing = [name for name in spec.model_fields if not re.search(rf":{name}\b", drawn)]
    assert missing == ["kind"]


def test_another_preset_resets_the_form(world: World) -> None:
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(17)
    app.run()
    app.selectbox(key="preset").set_value("sft")
    finished(app.run())
    assert (world.asked(PLAN)[-1]["name"], world.asked(PLAN)[-1]["steps"]) == ("digits-warm-up", 800)


def test_another_preset_keeps_name_and_data_that_were_typed(world: World) -> None:
    app = new_page()
    app.text_input(key="new-calibrl:name").set_value("my-run")
    app.selectbox(key="new-calibrl:data").set_value("path")
    app.run()
    app.text_input(key="new-calibrl:data:path.path").set_value("/data/mine.jsonl")
    app.number_input(key="new-calibrl:optimizer.lr").set_value(0.5)
    finished(app.run())
    app.selectbox(key="preset").set_value("grpo")
    finished(app.run())
    spec = yaml.safe_load(app.code[0].value)
    assert (spec["name"], spec["data"]["path"]) == ("my-run", "/data/mine.jsonl")
    assert spec["algorithm"]["type"] == "grpo" and spec["optimizer"]["lr"] != 0.5


def test_a_preset_of_the_url_is_taken_by_its_name(world: World) -> None:
    app = open_page("new_job", preset="grpo")
    assert app.selectbox(key="preset").value == "grpo" and not app.warning
    assert "asks for preset 'nonsense'" in open_page("new_job", preset="nonsense").warning[0].value


def imported(app: AppTest, text: str) -> AppTest:
    app.text_area(key="import-text").set_value(text)
    app.run()
    return press(app, "Fill in the form")


def test_yaml_fills_the_form_in(world: World) -> None:
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(17)
    app.run()
    spec = {
        "kind": "train",
        "name": "from-a-file",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "clip_high": 0.3},
        "labels": {"team": "vision"},
        "steps": 123,
    }
    imported(app, yaml.safe_dump(spec))
    assert app.selectbox(key="preset").value == "grpo"
    sent = world.asked(PLAN)[-1]
    assert (sent["name"], sent["steps"], sent["labels"]) == ("from-a-file", 123, {"team": "vision"})
    assert (sent["algorithm"]["type"], sent["algorithm"]["clip_high"]) == ("grpo", 0.3)
    imported(app, app.code[0].value)  # the form's own YAML
    assert world.asked(PLAN)[-1] == sent


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("steps: [1", "Invalid YAML"),
        ("kind: bisect", "kind: 'bisect' has no form"),
        (
            "kind: evaluate\nname: \u00fc\nmodels: [{builtin: tiny-vlm}]\ndata: [{builtin: digits}]",
            "name: Must contain only letters",
        ),
    ],
)
def test_a_faulty_yaml_is_refused_and_the_form_stays(world: World, text: str, fault: str) -> None:
    app = new_page()
    app.number_input(key="new-calibrl:steps").set_value(17)
    app.run()
    imported(app, text)
    assert any(block.value.startswith(fault) for block in app.code)
    assert world.asked(PLAN)[-1]["steps"] == 17


def test_a_job_is_cloned_into_the_form(world: World) -> None:
    job = world.add(name="the-first", spec={"seed": 7})
    app = open_page("new_job", clone=str(job.id))
    sent = world.asked(PLAN)[-1]
    assert (sent["name"], sent["seed"], sent["steps"]) == ("digits-calibrl", 7, 280)
    assert "clone" not in app.query_params


def test_a_checkpoint_of_a_job_is_evaluated_from_a_link(world: World) -> None:
    job = world.add(name="trained", status=JobStatus.SUCCEEDED)
    world.keep_checkpoint(job, 40)
    open_page("new_job", evaluate=str(job.id), checkpoint="40")
    sent = world.asked(PLAN)[-1]
    assert (sent["kind"], sent["models"]) == ("evaluate", [{"from_job": str(job.id), "checkpoint": 40}])
    other = world.add(kind="evaluate", name="measured")
    refused = open_page("new_job", evaluate=str(other.id)).warning[0].value
    assert "is a job of kind evaluate" in refused and "Name a job of kind train" in refused


def test_earlier_input_is_restored(world: World) -> None:
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
    assert world.asked(PLAN)[-1]["algorithm"]["type"] == "grpo"
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
    app = new_page()
    app.selectbox(key="new-calibrl:data").set_value("path")
    app.run()
    app.text_input(key="new-calibrl:data:path.path").set_value(f"/{HOSTILE}")
    text = html(finished(app.run()))
    assert text.count("there is no file") == 2  # at the field, and where the plan would be
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert submit_button(app).disabled


def test_a_number_out_of_range_is_in_the_yaml_and_blocks_the_submission(world: World) -> None:
    app = new_page()
    asked = len(world.asked(PLAN))
    app.number_input(key="new-calibrl:optimizer.lr").set_value(50.0)
    text = html(finished(app.run()))
    assert text.count("50 is out of range: more than 0 and at most 1") == 2  # at the field, and in place of the plan
    assert yaml.safe_load(app.code[0].value)["optimizer"]["lr"] == 50
    assert submit_button(app).disabled
    assert len(world.asked(PLAN)) == asked


def test_a_dataset_that_is_not_offered_is_found(world: World) -> None:
    world.add_dataset(name="the-oldest")
    for number in range(MAX_OPTIONS):
        world.add_dataset(name=f"figures-{number}")
    assert "the-oldest" not in [dataset.name for dataset in catalogue.datasets("default").data]
    assert [dataset.name for dataset in catalogue.find_datasets("default", "OLDEST")] == ["the-oldest"]


def test_a_field_that_is_empty_is_named_without_asking(world: World) -> None:
    app = new_page()
    asked = len(world.asked(PLAN))
    app.text_input(key="new-calibrl:name").set_value("")
    text = html(finished(app.run()))
    assert text.count("Required") == 2
    assert len(world.asked(PLAN)) == asked


def test_submitting_leads_to_the_job(world: World) -> None:
    app = new_page()
    app.text_input(key="new-calibrl:name").set_value("my own")
    app.run()
    submit_button(app).click()
    app.run()
    (sent,) = world.asked("POST /v1/jobs")
    assert sent["name"] == "my own"
    assert sent == world.asked(PLAN)[-1]
    assert app.query_params["id"] == str(world.named("my own").id)


def test_an_evaluation_of_the_newest_training(world: World) -> None:
    job = world.add(name="trained", status=JobStatus.SUCCEEDED)
    app = new_page()
    app.button_group(key="kind").set_value("Evaluation")
    finished(app.run())
    spec = world.asked(PLAN)[-1]
    assert (spec["kind"], spec["models"]) == ("evaluate", [{"from_job": str(job.id)}])
    assert spec["data"] == [{"builtin": "digits", "split": "test"}]
    press(app, "Add model")
    assert [UUID(model["from_job"]) for model in world.asked(PLAN)[-1]["models"]] == [job.id, job.id]


def test_only_projects_of_members_are_offered(world: World) -> None:
    roles = {"looked-at": Role.VIEWER, "worked-in": Role.MEMBER}
    world.sign_in("eve", roles)
    assert new_page().selectbox(key="new-calibrl:project").options == ["worked-in"]


@pytest.mark.parametrize(("scope", "role"), [("read", Role.ADMIN), ("write", Role.VIEWER)])
def test_viewers_get_no_form(world: World, scope: KeyScope, role: Role) -> None:
    world.sign_in("eve", {"default": role}, scope=scope)
    app = new_page()
    assert "Read-only" in html(app)
    assert not app.number_input
    assert not any(button.label == "New job" for button in jobs_page().button)


def test_the_jobs_list_leads_here(world: World) -> None:
    assert any(button.label == "New job" for button in jobs_page().button)


def test_an_audit_with_the_latest_training(world: World) -> None:
    job = world.add(name="trained", status=JobStatus.SUCCEEDED)
    app = new_page()
    app.button_group(key="kind").set_value("Audit")
    finished(app.run())
    spec = world.asked(PLAN)[-1]
    assert (spec["kind"], spec["model"], spec["data"]) == ("audit", {"from_job": str(job.id)}, {"builtin": "digits"})
    assert "max_nll" not in spec
    app.number_input(key="new-audit:max_nll").set_value(1.5)
    app.checkbox(key="new-audit:rewrite").set_value(True)
    finished(app.run())
    assert (world.asked(PLAN)[-1]["max_nll"], world.asked(PLAN)[-1]["rewrite"]) == (1.5, True)


def test_a_pipeline_is_submitted_as_a_whole(world: World) -> None:
    dataset = world.add_dataset(name="own.jsonl", preview={})
    app = open_page("new_job", kind="Pipeline")
    app.text_input(key="chain-name").set_value("first").run()
    app.selectbox(key="chain-training-data").set_value(str(dataset.id)).run()
    assert "Plan of first\\-warm\\-up" in [subheader.value for subheader in app.subheader]
    spec = world.asked(PLAN)[-1]
    assert spec["data"] == {"dataset": str(dataset.id)} and "validation" not in spec  # own data: no digits by default
    assert any("has no evaluation" in caption.value for caption in app.caption)
    app.selectbox(key="chain-evaluation-data-own").set_value(str(dataset.id)).run()
    press(app, "Submit pipeline")
    (sent,) = world.asked("POST /v1/pipelines")
    assert [spec["name"] for spec in sent["jobs"]] == ["first-warm-up", "first-calibrl", "first-evaluation"]
    assert sent["jobs"][1]["model"] == {"from_job": "@first-warm-up"}
    assert sent["jobs"][2]["data"] == [{"dataset": str(dataset.id)}]
    assert {job.name: job.status.value for job in service.jobs().data} == {
        "first-warm-up": "queued", "first-calibrl": "waiting", "first-evaluation": "waiting",
    }  # fmt: skip
