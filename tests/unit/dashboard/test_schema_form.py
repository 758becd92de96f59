"""Forms made of schemas: which widgets, what they say, and what of it is worth saying."""

from typing import Any

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from calibrl import presets
from calibrl.schemas import EvaluateSpec, TrainSpec, job_spec_adapter
from dashboard.forms.schema import Schema, label
from tests.support.waiting import LIMIT_SECONDS

TRAIN = Schema(TrainSpec.model_json_schema())
EVALUATE = Schema(EvaluateSpec.model_json_schema())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("rollout.max_completion_tokens", "Max completion tokens"),
        ("optimizer.lr", "Learning rate"),
        ("algorithm.kl_coef", "KL coefficient"),
        ("validation.every_steps", "Validate every N steps"),
        ("checkpoints.every_steps", "Save every N steps"),
        ("resources.labels", "Required machine labels"),
        ("labels", "Job labels"),
        ("data.0.rows", "Max rows"),
    ],
)
def test_labels_name_the_field_with_its_unit(path: str, text: str) -> None:
    assert label(path) == text


@pytest.mark.parametrize("name", presets.names())
def test_a_whole_spec_without_its_defaults_means_the_same(name: str) -> None:
    spec = job_spec_adapter.validate_python(yaml.safe_load(presets.text(name)))
    short = TRAIN.trimmed(TRAIN.root, spec.model_dump(mode="json"))
    assert job_spec_adapter.validate_python(short) == spec
    assert len(str(short)) < len(str(spec.model_dump(mode="json"))) / 2


def test_the_discriminator_of_a_variant_is_always_set() -> None:
    spec = {
        "kind": "evaluate",
        "name": "x",
        "models": [{"builtin": "tiny-vlm"}, {"path": "/models/one"}],
        "data": [{"builtin": "digits", "split": "test"}],
        "rewards": [{"type": "exact"}],
    }
    whole = job_spec_adapter.validate_python(spec).model_dump(mode="json")
    assert EVALUATE.trimmed(EVALUATE.root, whole) == spec


def test_a_list_of_sources_is_kept_and_trimmed() -> None:
    spec = {
        "kind": "train",
        "name": "x",
        "model": {"builtin": "tiny-vlm"},
        "data": [{"path": "/a.jsonl", "weight": 2.0}, {"builtin": "digits"}],
        "steps": 1,
    }
    whole = job_spec_adapter.validate_python(spec).model_dump(mode="json")
    assert TRAIN.trimmed(TRAIN.root, whole)["data"] == spec["data"]
    drawn = everything(whole).session_state["value"]["data"]
    assert [source.get("weight") for source in drawn] == [2.0, 1.0] and drawn[0]["path"] == "/a.jsonl"


def form_of_everything(start: dict) -> None:  # type: ignore[type-arg]  # it is run as a script: no imports above it
    import streamlit as st

    from calibrl.schemas import TrainSpec
    from dashboard.forms.schema import Schema
    from dashboard.forms.schema_form import SpecForm

    schema = Schema(TrainSpec.model_json_schema())
    jobs = {"5b1d0c0e-6c5a-4f0e-9a43-000000000001": "a job"}
    offered = {"project": {"default": "default"}, "from_job": jobs, "depends_on": jobs, "dataset": {}}
    form = SpecForm(schema, start, key="all", offered=offered, named={}, common=("weight",))
    found = {"one-step": {"id of one-step": "one-step"}, "two": {"two-1": "two 1", "two-2": "two 2"}, "no": {}}
    form.search["from_job"] = found.__getitem__
    form.value["kind"] = "train"
    form.rest(*(name for name in schema.root["properties"] if name != "kind"))
    form.blame([*form.errors, *st.session_state.get("errors", [])])
    st.session_state["value"], st.session_state["found"] = form.value, form.errors


def everything(start: dict[str, Any]) -> AppTest:
    return run(AppTest.from_function(form_of_everything, args=(start,), default_timeout=LIMIT_SECONDS))


def run(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception, app.exception[0].stack_trace
    return app


@pytest.mark.parametrize("name", presets.names())
def test_an_untouched_form_returns_its_initial_spec(name: str) -> None:
    start = yaml.safe_load(presets.text(name))
    app = everything(start)
    assert app.session_state["found"] == []
    assert job_spec_adapter.validate_python(app.session_state["value"]) == job_spec_adapter.validate_python(start)


def preset(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(presets.text("grpo"))
    return found | changes


def test_types_and_bounds_become_widgets() -> None:
    app = everything(preset())
    steps = app.number_input(key="all:steps")
    assert steps.value == 280
    assert steps.help.startswith("Number of steps of the run\\.") and steps.help.endswith("(`steps`)")
    rate = app.number_input(key="all:optimizer.lr")
    assert (rate.value, rate.proto.format) == (1e-4, "%g")
    assert rate.step == pytest.approx(1e-5)
    assert app.selectbox(key="all:precision").options == ["auto", "float32", "bfloat16"]
    assert app.text_input(key="all:name").proto.max_chars == 120
    assert app.number_input(key="all:prompts.max_tokens").proto.placeholder == "no limit"


def test_another_variant_brings_its_own_fields() -> None:
    app = everything(preset())
    app.selectbox(key="all:algorithm").set_value("calibrl")
    run(app)
    algorithm = app.session_state["value"]["algorithm"]
    assert (algorithm["type"], algorithm["guidance_coef"], algorithm["mini_batches"]) == ("calibrl", 0.1, 4)
    app.selectbox(key="all:model").set_value("from_job")
    run(app)
    model = app.session_state["value"]["model"]
    assert (model["from_job"][-1], model["checkpoint"]) == ("1", "best")


@pytest.mark.parametrize("checkpoint", ["last", 40])
def test_a_step_can_be_typed_in_a_field_of_words(checkpoint: object) -> None:
    app = everything(preset(model={"from_job": "5b1d0c0e-6c5a-4f0e-9a43-000000000001", "checkpoint": checkpoint}))
    assert app.session_state["value"]["model"]["checkpoint"] == checkpoint


def test_entries_are_added_and_taken_away() -> None:
    app = everything(preset())
    next(button for button in app.button if button.label == "Add reward").click()
    run(app)
    app.selectbox(key="all:rewards.2").set_value("exact")
    assert [one["type"] for one in run(app).session_state["value"]["rewards"]] == ["math", "format", "exact"]
    next(button for button in app.button if button.label == "Remove reward 1").click()
    assert [one["type"] for one in run(app).session_state["value"]["rewards"]] == ["format", "exact"]


def test_sections_that_may_be_left_out_are_switched() -> None:
    app = everything(preset())
    app.toggle(key="all:validation").set_value(False)
    assert run(app).session_state["value"]["validation"] is None
    app.toggle(key="all:model:builtin.lora").set_value(True)
    assert run(app).session_state["value"]["model"]["lora"] == {
        "rank": 16,
        "alpha": 32.0,
        "rslora": False,
        "dora": False,
        "dropout": 0.0,
        "targets": [],
    }


def test_labels_are_pairs() -> None:
    app = everything(preset(labels={"team": "vision"}))
    assert app.session_state["value"]["labels"] == {"team": "vision"}
    app.multiselect(key="all:labels").set_value(["team=vision", "stage:a=b"])
    assert run(app).session_state["value"]["labels"] == {"team": "vision", "stage": "a=b"}


def test_variables_of_a_template_keep_their_type_and_texts_their_lines() -> None:
    given = {"enable_thinking": False, "tries": 3, "style": "short", "quoted": "3"}
    prompts = {"chat_template_kwargs": given, "chat_template": "{{ messages }}\n", "instruction": None}
    app = everything(preset(prompts=prompts))
    value = app.session_state["value"]["prompts"]
    assert value["chat_template_kwargs"] == given and value["chat_template_kwargs"]["enable_thinking"] is False
    assert (value["chat_template"], value["instruction"]) == ("{{ messages }}\n", None)
    app.text_area(key="all:prompts.instruction").set_value("Be brief.")
    assert run(app).session_state["value"]["prompts"]["instruction"] == "Be brief."


def test_missing_required_fields_are_found() -> None:
    app = everything(preset(data={"dataset": None}))
    app.text_input(key="all:name").set_value(" ")
    required = [{"field": field, "message": "Required"} for field in ("name", "data.dataset")]
    assert run(app).session_state["found"] == required


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "0 is out of range: at least 1 and at most 10,000,000"),
        ("optimizer.lr", 50.0, "50 is out of range: more than 0 and at most 1"),
    ],
)
def test_a_number_out_of_range_is_returned_and_its_range_is_said(field: str, value: float, message: str) -> None:
    app = everything(preset())
    app.number_input(key=f"all:{field}").set_value(value)
    found = run(app).session_state["value"]
    for name in field.split("."):
        found = found[name]
    assert found == value
    assert app.session_state["found"] == [{"field": field, "message": message}]
    assert any(message in element.proto.body for element in app.get("html"))  # at the field


def test_a_number_field_has_no_limits_that_would_keep_an_old_value() -> None:
    for widget in everything(preset()).number_input:
        assert not (widget.proto.has_min or widget.proto.has_max)


@pytest.mark.parametrize(
    ("text", "id", "errors"),
    [
        ("one-step", "id of one-step", []),
        ("two", "two-1", []),  # the reader can choose the other one
        ("no", None, [{"field": "model.from_job", "message": "nothing matches 'no'"}]),
    ],
)
def test_a_typed_text_finds_a_job_that_is_not_offered(text: str, id: str | None, errors: list[Any]) -> None:
    start = preset(model={"from_job": None})
    app = AppTest.from_function(form_of_everything, args=(start,), default_timeout=LIMIT_SECONDS)
    app.session_state["all:model:from_job.from_job"] = text
    assert run(app).session_state["value"]["model"]["from_job"] == id
    assert app.session_state["found"] == errors
    assert [box.options for box in app.selectbox if box.label == "2 match two"] == [["two 1", "two 2"]] * (
        text == "two"
    )


def test_errors_are_beside_their_fields_and_inert() -> None:
    app = everything(preset())
    app.session_state["errors"] = [
        {"field": "steps", "message": "is <b>too</b> many"},
        {"field": "rewards.1.weight", "message": "is too heavy"},
        {"field": "optimizer.unknown.deep", "message": "is nowhere"},
    ]
    said = [element.proto.body for element in run(app).get("html")]
    assert len(said) == 2
    assert any("is &lt;b&gt;too&lt;/b&gt; many" in one for one in said) and any("is too heavy" in one for one in said)
