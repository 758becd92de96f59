"""Which settings of two evaluations differ."""

from calibrl.schemas import job_spec_adapter
from jobs.evaluations.compare import _compared_settings

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
    assert _compared_settings({"rollout": {"gone": 1}, "seed": 3}) == {"rollout": {"gone": 1}}
