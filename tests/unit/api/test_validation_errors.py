"""Field names in errors are those that a user wrote, without pydantic's union tags."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from api.validation_errors import field_errors
from calibrl.schemas import JobSpec

TRAIN: dict[str, Any] = {
    "kind": "train",
    "name": "a job",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "steps": 5,
}
adapter: TypeAdapter[Any] = TypeAdapter(JobSpec)


def fields(body: Any) -> list[str]:
    try:
        adapter.validate_python(body)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        return [found.field for found in field_errors(errors, body)]
    return []


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
