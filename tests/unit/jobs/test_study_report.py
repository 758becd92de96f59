"""The report of a study: its numbers, worked out by hand, and the pages that are written."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from calibrl.schemas import MetricRow, RecordedRun, StudySpec
from calibrl.studies.document import Drawing, Heading, Link, Paragraph, Part, Table, html, markdown
from calibrl.studies.figures import COLOURS, Interval, curves, differences
from calibrl.studies.pages import job_pages, report_parts, summary
from calibrl.studies.written import write_report
from jobs.studies.curves import accuracy_at, common_budget, curve, thinned
from tests.support.study_jobs import BEGAN, STUDY, StudyJobs, recorded_run

SPEC = {"prompts_per_step": 8, "rollout": {"group_size": 4}, "algorithm": {"type": "grpo"}}


def finished(*, missing: str | None = None, **accuracies: list[float]) -> tuple[StudyJobs, StudySpec]:
    """A study of two arms whose jobs have ended; without the evaluation `missing`."""
    jobs = StudyJobs()
    study = StudySpec.model_validate(STUDY | {"seeds": [0, 1, 2], "baseline": "a"})
    jobs.step(study)
    for job in [job for job in jobs.jobs_by_id.values() if missing and job.name.endswith(missing)]:
        del jobs.jobs_by_id[job.id]
    jobs.end_open(accuracies)
    return jobs, study


def metrics(*accuracies: float, seconds: float) -> list[MetricRow]:
    return [
        MetricRow(step=step, ts=BEGAN, values={"validation/accuracy": accuracy, "perf/step_seconds": seconds})
        for step, accuracy in enumerate(accuracies, 1)
    ]


def test_differences_are_paired_and_lead_to_a_verdict() -> None:
    """b is better by 0.25 on each prompt of each seed: no spread, so p is the smallest."""
    jobs, study = finished(a=[0.0, 0.5, 0.75], b=[0.25, 0.75, 1.0])
    report = jobs.report(study)
    (row,) = report.comparisons
    assert (row.first, row.second, row.split, row.seeds, row.prompts) == ("a", "b", "test", [0, 1, 2], 3)
    assert (row.difference, row.low, row.high, row.distinguishable) == (0.25, 0.25, 0.25, True)
    assert [arm.accuracies["test"] for arm in report.arms] == pytest.approx([1.25 / 3, 2.0 / 3])
    assert [arm.slot_hours for arm in report.arms] == [6.0, 6.0]
    assert summary(report)[1] == "b against a: +25.0 points (+25.0 to +25.0), better."


def test_a_difference_that_varies_is_not_distinguishable() -> None:
    """Differences +1, -1 and +0.5 on three prompts, the same for all seeds: more seeds do not settle it."""
    jobs, study = finished(a=[0.0, 1.0, 0.0], b=[1.0, 0.0, 0.5])
    (row,) = jobs.report(study).comparisons
    assert row.difference == pytest.approx(1 / 6)
    assert (row.distinguishable, row.needed_seeds) == (False, None)
    assert row.needed_prompts is not None and row.needed_prompts > 100
    text = summary(jobs.report(study))[1]
    assert "not distinguishable. A difference of this size needs" in text and "prompts" in text


def test_a_run_without_an_evaluation_takes_no_part() -> None:
    jobs, study = finished(missing="b seed 1 evaluation", a=[0.0, 0.5], b=[0.5, 1.0])
    report = jobs.report(study)
    assert report.comparisons[0].seeds == [0, 2]
    assert [run.evaluation for run in report.runs if (run.arm, run.seed) == ("b", 1)] == [None]
    jobs, study = finished(missing="evaluation")
    assert summary(jobs.report(study)) == ["No run is evaluated yet."]


# ---- Equal budgets


def test_a_curve_counts_rollouts_and_seconds() -> None:
    """8 prompts x 4 rollouts per step, or the prompts that dynamic sampling reports; step 0 costs nothing."""
    rows: list[tuple[int, Mapping[str, float | str]]] = [
        (0, {"validation/accuracy": 0.1}),
        (1, {"perf/step_seconds": 2.0}),
        (2, {"perf/step_seconds": 3.0, "exploration/sampled_prompts": 20.0, "validation/accuracy": 0.3}),
        (3, {"perf/step_seconds": 1.0, "validation/accuracy": "NaN"}),
    ]
    found = [(point.step, point.rollouts, point.seconds, point.accuracy) for point in curve(rows, SPEC)]
    assert found == [(0, 0, 0, 0.1), (2, 112, 5, 0.3)]
    trained = curve(rows, SPEC | {"algorithm": {"type": "sft"}})
    assert common_budget([trained], "seconds") == 5


def test_a_long_curve_is_thinned_evenly() -> None:
    points = curve([(step, row.values) for step, row in enumerate(metrics(*[0.5] * 10, seconds=1), 1)], SPEC)
    assert [point.step for point in thinned(points, 4)] == [1, 4, 7, 10]
    assert thinned(points, 10) == points


@pytest.mark.parametrize(
    ("splits", "training", "message"),
    [
        ({"prompts": [], "values": []}, {}, "at least 1 item"),
        ({"values": [0.5]}, {}, "1 values for 2 prompts"),
        ({"values": [0.5, 1.5]}, {}, "less than or equal to 1"),
        ({}, {"started_at": "2026-01-01T00:00:00"}, "should have timezone info"),
        ({}, {"gpus": 10**400}, "less than or equal to 100000"),
    ],
)
def test_a_faulty_recorded_run_is_refused(splits: dict[str, Any], training: dict[str, Any], message: str) -> None:
    """A study that reads such a run could never make another step."""
    run = recorded_run()
    RecordedRun.model_validate(run)
    run["splits"][0] |= splits
    run["training"] |= training
    with pytest.raises(ValidationError, match=message):
        RecordedRun.model_validate(run)


def test_values_at_a_budget_are_those_of_the_last_validation_within_it() -> None:
    slow = curve([(step, row.values) for step, row in enumerate(metrics(0.1, 0.2, 0.3, seconds=4), 1)], SPEC)
    quick = curve([(step, row.values) for step, row in enumerate(metrics(0.2, 0.4, 0.6, seconds=2), 1)], SPEC)
    assert common_budget([slow, quick], "rollouts") == 96
    limit = common_budget([slow, quick], "seconds")
    assert limit == 6
    assert (accuracy_at(slow, "seconds", limit), accuracy_at(quick, "seconds", limit)) == (0.1, 0.6)
    assert accuracy_at(slow, "seconds", 3) is None
    assert common_budget([slow, []], "rollouts") is None


def test_arms_are_compared_at_equal_rollouts_and_at_equal_time() -> None:
    """Two steps of 8 prompts x 10 rollouts. b is slower: at equal rollouts it ends 0.2 above a, at equal time 0.1
    below.
    """
    jobs, study = finished(a=[0.0, 0.5], b=[0.5, 1.0])
    for job in jobs.jobs_by_id.values():
        arm = job.labels["study-arm"]
        jobs.rows[job.id] = metrics(*((0.3, 0.3) if arm == "a" else (0.2, 0.5)), seconds=2 if arm == "a" else 4)
    rollouts, seconds = jobs.report(study).budgets
    assert (rollouts.budget, rollouts.amount, seconds.budget, seconds.amount) == ("rollouts", 160, "seconds", 4)
    assert [rollouts.difference, seconds.difference] == pytest.approx([0.2, -0.1])


# ---- Metrics


def test_metrics_are_compared_by_their_means_late_in_the_run() -> None:
    """The last of four steps counts. b is above a by 0.5 and 0.7: 0.6, with Student's t of one degree of freedom
    12.706: 12.706 x 0.1 = 1.2706.
    """
    jobs, study = finished(a=[0.0, 0.5], b=[0.5, 1.0])
    study = study.model_copy(update={"seeds": (0, 1), "metrics": ("exploration/entropy", "loss/absent")})
    for job in jobs.jobs_by_id.values():
        late = {"a": 0.2, "b": 0.7 if job.labels.get("study-seed") == "0" else 0.9}[job.labels["study-arm"]]
        values: list[float | str] = [9.0, 9.0, "NaN", late]
        jobs.rows[job.id] = [
            MetricRow(step=step, ts=BEGAN, values={"exploration/entropy": value})
            for step, value in enumerate(values, 1)
        ]
    report = jobs.report(study)
    (row,) = report.metrics
    assert (row.metric, row.first, row.second, row.seeds) == ("exploration/entropy", "a", "b", [0, 1])
    assert [row.before, row.after, row.difference] == pytest.approx([0.2, 0.8, 0.6])
    assert [row.low, row.high] == pytest.approx([0.6 - 1.2706, 0.6 + 1.2706], abs=1e-4)
    text = markdown(report_parts(report, job_pages("http://service", None)), "")
    assert "+0.6 (-0.671 to +1.87)" in text
    drawings = [part for part in report_parts(report, job_pages("", None)) if isinstance(part, Drawing)]
    (figure,) = [drawing.svg for drawing in drawings if drawing.name == "metric-exploration_entropy"]
    assert ">nats/token<" in figure and COLOURS[0] not in figure  # the interval has 0 in it


# ---- Pages


def test_every_number_leads_to_its_job(tmp_path: Path) -> None:
    jobs, study = finished(a=[0.0, 0.5], b=[0.5, 1.0])
    paths = write_report(jobs.report(study), tmp_path / "out", job_pages("http://service", "http://board/"))
    assert [path.name for path in paths] == ["slopes.md", "slopes.html", "slopes-differences-test.svg"]
    page, text = paths[1].read_text(), paths[0].read_text()
    for job in jobs.jobs_by_id.values():
        assert f'href="http://board/job?id={job.id}"' in page
        assert f"](http://board/job?id={job.id})" in text
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert {*re.findall(r'href="#([^"]+)"', page)} <= anchors
    assert "<script" not in page and "http://www.w3.org/2000/svg" in page
    assert not re.search(r'(?:src|href)="(?!#|http://board/)', page)


def test_links_lead_to_the_api_without_a_dashboard() -> None:
    assert job_pages("http://service", None)(UUID(int=1)).startswith("http://service/v1/jobs/00000000-")


def test_numbers_in_tables_are_links() -> None:
    jobs, study = finished(a=[0.0, 0.5], b=[0.5, 1.0])
    parts = report_parts(jobs.report(study), job_pages("http://service", None))
    cells = [cell for part in parts if isinstance(part, Table) for row in part.rows for cell in row[1:]]
    assert [cell for cell in cells if isinstance(cell, str) and any(map(str.isdigit, cell)) and "=" not in cell] == []


def test_names_cannot_break_a_page() -> None:
    parts: list[Part] = [
        Heading("<b>", "x", 1),
        Paragraph("a | b_c"),
        Table(("<i>", "n"), [["a|b", Link("<1>", "#x")]]),
    ]
    assert "<b>" not in html(parts, "<t>") and "&lt;b&gt;" in html(parts, "<t>")
    assert "| a\\|b | [\\<1\\>](#x) |" in markdown(parts, "p-")
    assert "a \\| b\\_c" in markdown(parts, "p-")


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_figures_are_svg_with_round_ticks(scale: float) -> None:
    rows = [Interval("b & a", 2 * scale, -scale, 5 * scale, False), Interval("c", -scale, -2 * scale, -scale / 2, True)]
    lines: Any = {"a": [[(0.0, 0.1), (scale, 0.5)]], "b": [[(scale, 0.4)]]}
    for figure in (differences(rows, "differences", "nats"), curves(lines, "curves", "rollouts")):
        texts = [text.text or "" for text in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")]
        assert 3 <= sum(bool(re.search(r"\d", text)) for text in texts) <= 20
        assert any(text.startswith("b") for text in texts)
