"""The spec of a job as the dashboard shows it: order of its fields, and fields that differ from their defaults."""

from calibrl.schemas import TrainSpec
from dashboard.views.spec_diff import changed_fields, ordered


def test_a_spec_is_shown_in_the_order_of_its_model() -> None:
    least = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 9}
    spec = TrainSpec.model_validate(least | {"algorithm": {"type": "grpo", "clip_low": 0.1}}).model_dump(mode="json")
    shuffled = {name: spec[name] for name in sorted(spec)}
    shuffled["algorithm"] = {name: spec["algorithm"][name] for name in sorted(spec["algorithm"])}
    assert list(ordered(shuffled)) == list(spec) != list(shuffled)
    assert list(ordered(shuffled)["algorithm"]) == list(spec["algorithm"])
    assert changed_fields(shuffled) == changed_fields(spec)
    assert ordered({"kind": "train", "b": 1, "a": 2}) == {"kind": "train", "b": 1, "a": 2}
