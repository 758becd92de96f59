"""Which settings of two evaluations differ."""

from typing import Any

import pytest

from calibrl.schemas import job_spec_adapter
from jobs.evaluations.compare import _compared_settings, _different

SPEC = {
    "kind": "evaluate",
    "name": "x",
    "models": [{"builtin": "tiny-vlm"}],
    "data": [{"builtin": "digits", "split": "test"}],
}


def test_settings_that_an_older_spec_lacks_have_their_defaults() -> None:
    now = job_spec_adapter.validate_python(SPEC).model_dump(mode="json")
    before = {name: value for name, value in now.items() if name != "prompts"}
    assert _compared_settings(before) == _compared_settings(now)
    other = _compared_settings(now | {"prompts": {"instruction": None}})
    assert [name for name, value in other.items() if value != _compared_settings(now)[name]] == ["prompts"]


def test_a_spec_that_is_not_accepted_any_more_is_compared_as_stored() -> None:
    stored = _compared_settings({"rollout": {"gone": 1}, "seed": 3})
    assert stored == {"rollout": {"gone": 1}}
    assert "rollout.gone" in _different([stored, _compared_settings(SPEC)])


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({}, {}, []),
        ({}, {"rollout": {"top_p": 1.0}}, []),  # its default
        ({}, {"rollout": {"top_p": 0.9, "temperature": 0.6, "stop": ["x"]}}, ["top_p", "stop", "temperature"]),
        ({"rollout": {"batch_tokens": 10}}, {"rollout": {"batch_tokens": 20}}, []),  # the speed only
        ({"rollout": {"engine": "vllm_server"}}, {}, ["engine"]),
    ],
)
def test_settings_of_sampling_are_named_one_by_one(first: Any, second: Any, names: list[str]) -> None:
    found = _different([_compared_settings(first), _compared_settings(second)])
    assert found == [f"rollout.{name}" for name in names]


def test_rewards_are_one_setting_and_precision_is_another() -> None:
    settings = [_compared_settings(spec) for spec in ({}, {"rewards": [{"type": "exact"}], "precision": "float32"})]
    assert _different(settings) == ["rewards", "precision"]
