"""Field names in errors are those that a user wrote, without pydantic's union tags."""

from typing import Any

import pytest
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from api.validation_errors import field_errors
from calibrl.schemas import JobSpec
from calibrl.schemas.fault_texts import fault_text
from jobs.errors import FieldError

TRAIN: dict[str, Any] = {
    "kind": "train",
    "name": "a job",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "steps": 5,
}
adapter: TypeAdapter[Any] = TypeAdapter(JobSpec)


def faults(body: Any) -> list[FieldError]:
    try:
        adapter.validate_python(body)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        return field_errors(errors, body, adapter.json_schema)
    return []


def fields(body: Any) -> list[str]:
    return [found.field for found in faults(body)]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bogus": 1}, ["bogus"]),
        ({"steps": -1}, ["steps"]),
        ({"steps": "many"}, ["steps"]),
        ({"steps": 10**400}, ["steps"]),
        ({"steps": None}, ["steps"]),
        ({"model": {"builtin": "tiny-vlm", "quantization": "nf4"}}, ["model.quantization"]),
        ({"name": None}, ["name"]),
        ({"rollout": {"group_size": 1}}, ["rollout.group_size"]),
        ({"rollout": 5}, ["rollout"]),
        ({"algorithm": {"type": "calibrl", "negative_slope": 7}}, ["algorithm.negative_slope"]),
        ({"algorithm": {"type": "calibrl", "calibrl": 7}}, ["algorithm.calibrl"]),
        ({"algorithm": {"type": "nope"}}, ["algorithm.type"]),
        ({"algorithm": {}}, ["algorithm.type"]),
        ({"algorithm": {"type": "sft", "x": 1}, "rewards": [{"type": "math", "y": 1}]}, ["algorithm.x", "rewards.0.y"]),
        ({"data": {"builtin": "digits", "split": "x"}}, ["data.split"]),
        ({"data": {"builtin": "nope"}}, ["data.builtin"]),
        ({"data": {"builtin": "digits", "train": 1}}, ["data.train"]),
        ({"data": {"path": 5}}, ["data.path"]),
        (
            {"data": {"path": "/x.jsonl", "columns": {"question": 1, "z": 1}}},
            ["data.columns.question", "data.columns.z"],
        ),
        ({"data": {}}, ["data.builtin"]),
        ({"data": 5}, ["data"]),
        ({"model": {"from_job": "not a uuid"}}, ["model.from_job"]),
        ({"model": {"from_job": "6f0c3c52-5c67-4b0c-9d2f-2d8bb57d5a0e", "checkpoint": "x"}}, ["model.checkpoint"]),
        ({"validation": {"data": {"builtin": "digits", "rows": 0}}}, ["validation.data.rows"]),
        ({"validation": {}}, ["validation.data"]),
        ({"labels": {"Not A Slug": "x"}}, ["labels.Not A Slug"]),
        ({"depends_on": ["x"]}, ["depends_on.0"]),
        ({"resources": {"gpus": 65}}, ["resources.gpus"]),
        ({"kind": "dance"}, ["kind"]),
    ],
)
def test_fields_are_named_as_written(changes: dict[str, Any], named: list[str]) -> None:
    assert fields({**TRAIN, **changes}) == named


def test_missing_fields_are_named() -> None:
    assert fields({"kind": "train"}) == ["name", "model", "data"]
    assert fields({}) == ["kind"]
    assert fields(5) == ["body"]


def test_lists_of_unions_are_named_by_index() -> None:
    body = {
        "kind": "evaluate",
        "name": "a job",
        "models": [{"builtin": "tiny-vlm"}, {"path": ""}],
        "data": [{"builtin": "digits", "split": "test"}, {"builtin": "digits", "split": "x"}],
    }
    assert fields(body) == ["models.1.path", "data.1.split"]


def test_a_good_spec_has_no_errors() -> None:
    assert fields(TRAIN) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 5}, "Unknown field: did you mean steps?"),
        ({"batch_size": 5}, "Unknown field: did you mean prompts_per_step?"),
        ({"learning_rate": 1}, "Unknown field: did you mean optimizer.lr?"),
        ({"optimizer": {"learning_rate": 1}}, "Unknown field: did you mean lr?"),
        ({"algorithm": {"type": "calibrl", "negative_slop": 1}}, "Unknown field: did you mean negative_slope?"),
        ({"algorithm": {"type": "sft", "negative_slope": 1}}, "Unknown field"),
        ({"model": {"builtin": "tiny-vlm", "lora": {"rank": 8, "r": 8}}}, "Unknown field: did you mean rank?"),
        ({"data": {"builtin": "digits", "columns": {}}}, "Unknown field"),
        ({"bogus": 1}, "Unknown field"),
    ],
)
def test_an_unknown_field_gets_a_suggestion(changes: dict[str, Any], message: str) -> None:
    assert [found.message for found in faults({**TRAIN, **changes})] == [message]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "many"}, "Must be a whole number"),
        ({"steps": 0}, "Must be at least 1"),
        ({"depends_on": 5}, "Must be a list"),
        ({"depends_on": ["x"]}, "Must be the whole id, which has 36 characters"),
        ({"name": "?"}, "Must contain only letters, digits, spaces and . _ -, and begin with a letter or a digit"),
        ({"rollout": 5}, "Must be a mapping with fields"),
        ({"priority": "urgent"}, "Must be 'low', 'normal' or 'high'"),
    ],
)
def test_a_message_says_what_the_field_must_be(changes: dict[str, Any], message: str) -> None:
    assert [found.message for found in faults({**TRAIN, **changes})] == [message]


def test_times_need_a_zone() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(AwareDatetime).validate_python("2026-01-01T00:00:00")
    assert fault_text(refused.value.errors()[0]).startswith("Must be a time with a time zone")
