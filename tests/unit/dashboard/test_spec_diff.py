"""The spec of a job as the dashboard shows it: order of its fields, and fields that differ from their defaults."""

from calibrl.schemas import TrainSpec
from dashboard.views.spec_diff import changed_fields, flat, ordered


def test_a_spec_is_shown_in_the_order_of_its_model() -> None:
    least = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 9}
    spec = TrainSpec.model_validate(least | {"algorithm": {"type": "grpo", "clip_low": 0.1}}).model_dump(mode="json")
    shuffled = {name: spec[name] for name in sorted(spec)}
    shuffled["algorithm"] = {name: spec["algorithm"][name] for name in sorted(spec["algorithm"])}
    assert list(ordered(shuffled)) == list(spec) != list(shuffled)
    assert list(ordered(shuffled)["algorithm"]) == list(spec["algorithm"])
    assert changed_fields(shuffled) == changed_fields(spec)
    assert ordered({"kind": "train", "b": 1, "a": 2}) == {"kind": "train", "b": 1, "a": 2}


def test_small_numbers_have_one_notation() -> None:
    spec = {
        "lr": 1e-4,
        "min_lr": 1e-06,
        "decay": 0.00025,
        "share": 0.05,
        "zero": 0.0,
        "size": 12_500_000.0,
        "steps": 10**7,
    }
    shown = {
        "lr": "1e-4", "min_lr": "1e-6", "decay": "2.5e-4", "share": "0.05", "zero": "0.0", "size": "1.25e7",
        "steps": "10000000",
    }  # fmt: skip
    assert flat(spec) == shown
