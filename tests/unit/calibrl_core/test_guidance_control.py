"""Guidance that is moved to keep a measure within a band: by numbers worked out by hand, and in whole runs."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from calibrl_core.algorithms import CalibRL
from calibrl_core.algorithms.guidance_control import GuidanceControl
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.variants.settings import changed_algorithm
from tests.support.training import config, of_type

BAND = {"low": 0.2, "high": 0.4, "factor": 2.0, "minimum": 0.05, "maximum": 0.8}


@pytest.mark.parametrize(
    ("moves", "measure", "value", "expected"),
    [
        ("guidance_coef", "entropy", 0.1, 0.2),  # too little entropy: more guidance
        ("guidance_coef", "entropy", 0.2, 0.1),  # the ends are within the band
        ("guidance_coef", "entropy", 0.4, 0.1),
        ("guidance_coef", "entropy", 0.5, 0.05),
        ("negative_slope", "entropy", 0.1, 0.05),  # less push on tokens that are already where they should be
        ("negative_slope", "entropy", 0.5, 0.2),
        ("guidance_coef", "opposing_share", 0.5, 0.05),  # too many opposed tokens: less guidance
        ("guidance_coef", "opposing_share", 0.1, 0.2),
        ("negative_slope", "opposing_share", 0.5, 0.05),
    ],
)
def test_a_measure_outside_the_band_moves_the_setting(moves: Any, measure: Any, value: float, expected: float) -> None:
    control = GuidanceControl(moves=moves, measure=measure, **BAND)
    name = {"entropy": "exploration/entropy", "opposing_share": "expert/opposing_share"}[measure]
    algorithm = CalibRL(guidance_coef=0.1, negative_slope=0.1, guidance_control=control)
    assert algorithm.moved(0, {name: value}) == {moves: pytest.approx(expected)}


def test_the_setting_stays_within_its_limits_and_without_a_measure() -> None:
    control = GuidanceControl(**BAND)
    assert control.next_value(0.7, {"exploration/entropy": 0.0}) == 0.8
    assert control.next_value(0.06, {"exploration/entropy": 9.0}) == 0.05
    assert control.next_value(0.1, {}) == 0.1
    assert control.next_value(0.1, {"exploration/entropy": float("nan")}) == 0.1


def test_nothing_moves_before_the_guidance_starts() -> None:
    algorithm = CalibRL(guidance_start_step=2, guidance_control=GuidanceControl(**BAND))
    assert algorithm.moved(1, {"exploration/entropy": 0.0}) == {}
    assert algorithm.moved(2, {"exploration/entropy": 0.0}) == {"guidance_coef": 0.2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_control": BAND | {"low": 0.5}}, "low (0.5) must not exceed high (0.4)"),
        ({"guidance_control": BAND | {"minimum": 0.9}}, "minimum (0.9) must not exceed maximum (0.8)"),
        ({"guidance_coef": 0.0, "guidance_control": BAND}, "guidance_coef (0) must be from guidance_control.minimum"),
        (
            {"guidance_control": BAND | {"moves": "negative_slope", "maximum": 2}},
            "maximum (2) of negative_slope must not exceed 1",
        ),
        (
            {"guidance_control": BAND | {"measure": "opposing_share", "high": 1.5}},
            "high (1.5) of opposing_share must not exceed 1",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CalibRL.model_validate({"type": "calibrl", **changes})
    assert message in str(refused.value)


def controlled(low: float, high: float, **changes: Any) -> Any:
    control = {"low": low, "high": high, "factor": 1.5, "maximum": 0.3}
    return config(algorithm={"type": "calibrl", "mini_batches": 1, "guidance_control": control, **changes})


def run(folder: Path, settings: Any, steps: int | None = None) -> list[dict[str, float]]:
    """Train, at most `steps` steps; the metrics of all steps so far."""
    report = EventFile(folder)
    began = len(of_type(folder, "metrics"))
    train(settings, report, lambda: steps is not None and len(of_type(folder, "metrics")) - began >= steps)
    report.close()
    return [
        {name: value for name, value in event["values"].items() if not name.startswith("perf/")}
        for event in of_type(folder, "metrics")
    ]


@pytest.mark.usefixtures("rewarding")
def test_the_loss_of_each_step_has_the_moved_coefficient(tmp_path: Path) -> None:
    """The entropy of a fresh model is about 7.5 nats: below the band, so that each step multiplies by 1.5."""
    metrics = run(tmp_path, controlled(20, 30))
    assert [values["algorithm/guidance_coef"] for values in metrics] == pytest.approx([0.1, 0.15, 0.225, 0.3])
    for values in metrics:
        weighted = values["algorithm/guidance_coef"] * values["loss/guidance"]
        assert values["loss/total"] == pytest.approx(values["loss/policy"] + weighted, abs=1e-6)
    assert any(abs(values["loss/guidance"]) > 1e-3 for values in metrics)


@pytest.mark.usefixtures("rewarding")
def test_a_run_with_moved_guidance_resumes_exactly(tmp_path: Path) -> None:
    settings = controlled(20, 30)
    whole = run(tmp_path / "whole", settings)
    run(tmp_path / "halves", settings, steps=3)
    assert run(tmp_path / "halves", settings) == whole


@pytest.mark.usefixtures("rewarding")
def test_a_resume_without_the_control_takes_the_value_of_the_spec(tmp_path: Path) -> None:
    run(tmp_path, controlled(20, 30), steps=2)
    metrics = run(tmp_path, controlled(20, 30, guidance_control=None, guidance_coef=0.2))
    last = metrics[-1]
    assert "algorithm/guidance_coef" not in last
    assert last["loss/total"] == pytest.approx(last["loss/policy"] + 0.2 * last["loss/guidance"], abs=1e-6)


def test_the_default_variants_of_a_controlled_algorithm_are_valid() -> None:
    own = CalibRL(guidance_control=GuidanceControl(**BAND))
    made = {name: changed_algorithm(own.model_dump(), changes) for name, changes in own.default_variants.items()}
    assert made["no guidance"].model_dump() == {**own.model_dump(), "guidance_coef": 0.0, "guidance_control": None}
    assert len(made) == 7
