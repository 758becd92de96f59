"""The parts of a study's report: what is shown, in which order, and where each number leads."""

import json
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from calibrl.schemas.study_reports import (
    Budget,
    MetricComparison,
    StudyArm,
    StudyComparison,
    StudyDifference,
    StudyReport,
    StudyRun,
)
from calibrl.studies import figures
from calibrl.studies.document import Cell, Drawing, Heading, Link, Paragraph, Part, Table
from calibrl_core.metrics import look_up

NONE = "–"
UNITS: dict[Budget, str] = {"rollouts": "rollouts", "seconds": "s of step time"}
JobUrl = Callable[[UUID], str]


def job_pages(api_url: str, dashboard_url: str | None) -> JobUrl:
    """Return a function that gives the address of a job: in the dashboard, or in the API without one."""
    if dashboard_url is None:
        return lambda job: f"{api_url}/v1/jobs/{job}"
    return lambda job: f"{dashboard_url.rstrip('/')}/job?id={job}"


def report_parts(report: StudyReport, job_url: JobUrl) -> list[Part]:
    """Return the document of a report. `job_url`: address of the page of a job."""
    return [
        Heading(f"Study {report.name}", "study", 1),
        *(Paragraph(text) for text in summary(report)),
        *(Paragraph(f"Note: {note}") for note in report.notes),
        *_differences(report),
        *_arms(report),
        *_metrics(report),
        *_budgets(report),
        *_runs(report, job_url),
    ]


def summary(report: StudyReport) -> list[str]:
    """Return the result of the primary measure in sentences."""
    if report.primary is None:
        return ["No run is evaluated yet."]
    seeds = len({run.seed for run in report.runs})
    head = f"{len(report.arms)} arms with {seeds} seeds. Primary measure: accuracy on {report.primary}."
    return [head, *(sentence(row) for row in report.comparisons if row.split == report.primary)]


def sentence(row: StudyComparison) -> str:
    """Return a comparison in one sentence."""
    if row.difference is None:
        return f"{row.second} against {row.first}: {len(row.seeds)} seeds of both are evaluated; two are needed."
    text = f"{row.second} against {row.first}: {points(row)}, {verdict(row)}."
    if row.distinguishable:
        return text
    remedies = {"seeds": row.needed_seeds, "prompts": row.needed_prompts}
    ways = " or ".join(f"{count:,} {name}" for name, count in remedies.items() if count is not None)
    return f"{text} A difference of this size needs {ways}." if ways else text


def points(row: StudyDifference) -> str:
    """Return a difference in percentage points, with its interval."""
    if row.difference is None or row.low is None or row.high is None:
        return NONE
    return f"{row.difference * 100:+.1f} points ({row.low * 100:+.1f} to {row.high * 100:+.1f})"


def verdict(row: StudyComparison) -> str:
    """Return the conclusion about the second arm, in words."""
    if row.difference is None:
        return NONE
    return "not distinguishable" if not row.distinguishable else "better" if row.difference > 0 else "worse"


def _anchor(arm: str) -> str:
    return f"arm-{arm}"


def _differences(report: StudyReport) -> Iterator[Part]:
    yield Heading("Differences", "differences")
    yield Paragraph(
        f"Accuracy of the first arm minus that of the second, paired by seed and prompt. Intervals of "
        f"{report.confidence:.1%}: hierarchical bootstrap over seeds and prompts, stretched to Student's t. "
        "p: after Holm's correction on the dataset. Last columns: seeds, or prompts, with which a difference of this "
        "size would be distinguishable with a probability of 80 %."
    )
    for split in report.splits:
        rows = [row for row in report.comparisons if row.split == split]
        yield Heading(f"On {split}", f"differences-{split}", 3)
        head = ("Arm against arm", "Seeds", "Prompts", "Difference", "p", "Verdict", "Seeds needed", "Prompts needed")
        yield Table(head, [_difference(row) for row in rows])
        if drawn := [interval for row in rows if (interval := _interval(row)) is not None]:
            caption = f"Differences on {split} in percentage points; blue: distinguishable"
            yield Drawing(f"differences-{_file_name(split)}", figures.differences(drawn, caption, "points"), caption)


def _file_name(split: str) -> str:
    return "".join(char if char.isalnum() or char in "-." else "_" for char in split)


def _difference(row: StudyComparison) -> list[Cell]:
    target = f"#{_anchor(row.second)}"
    p_value = NONE if row.adjusted_p_value is None else f"{row.adjusted_p_value:.2g}"
    needed = [NONE if count is None else f"{count:,}" for count in (row.needed_seeds, row.needed_prompts)]
    texts = [f"{len(row.seeds)}", f"{row.prompts:,}", points(row), p_value, verdict(row), *needed]
    return [f"{row.second} against {row.first}", *(Link(text, target) if text != NONE else text for text in texts)]


def _interval(row: StudyComparison) -> figures.Interval | None:
    if row.difference is None or row.low is None or row.high is None:
        return None
    label = f"{row.second} against {row.first}"
    return figures.Interval(label, row.difference * 100, row.low * 100, row.high * 100, row.distinguishable)


def _arms(report: StudyReport) -> Iterator[Part]:
    yield Heading("Arms", "arms")
    yield Paragraph("Mean rank: over the seeds with which all arms are evaluated, by the primary measure; 1 is best.")
    head = ("Arm", "Changes", "Seeds", *(f"Accuracy on {split}" for split in report.splits), "Mean rank", "Slot-hours")
    yield Table(head, [_arm(report, arm) for arm in report.arms])


def _arm(report: StudyReport, arm: StudyArm) -> list[Cell]:
    target = f"#{_anchor(arm.name)}"
    changes = ", ".join(f"{path}={json.dumps(value)}" for path, value in arm.changes.items()) or NONE
    means = [arm.accuracies.get(split) for split in report.splits]
    shown = [NONE if mean is None else f"{mean:.1%}" for mean in means]
    name = arm.name if arm.stopped_after is None else f"{arm.name} (stopped after {arm.stopped_after} seeds)"
    rank = NONE if arm.mean_rank is None else f"{arm.mean_rank:.2f}"
    texts = [f"{len(arm.seeds)}", *shown, rank, f"{arm.slot_hours:.2f}"]
    return [name, changes, *(Link(text, target) for text in texts)]


def _metrics(report: StudyReport) -> Iterator[Part]:
    if not report.metrics:
        return
    yield Heading("Metrics", "metrics")
    yield Paragraph(
        "Mean of each metric over the last quarter of the steps. Intervals are over seeds only, by Student's t, and "
        "are not corrected for the number of comparisons."
    )
    for metric in dict.fromkeys(row.metric for row in report.metrics):
        yield Heading(metric, f"metric-{_file_name(metric)}", 3)
        rows = [row for row in report.metrics if row.metric == metric]
        yield Table(("Arm against arm", "Seeds", "Second arm", "First arm", "Difference", "p"), [*map(_metric, rows)])
        known = look_up(metric)
        caption = f"Differences of {metric}; blue: the interval leaves out 0"
        drawn = figures.differences([*map(_metric_interval, rows)], caption, known.unit if known else "")
        yield Drawing(f"metric-{_file_name(metric)}", drawn, caption)


def _metric(row: MetricComparison) -> list[Cell]:
    target = f"#{_anchor(row.second)}"
    assert row.difference is not None and row.low is not None and row.high is not None and row.p_value is not None
    difference = f"{row.difference:+.3g} ({row.low:+.3g} to {row.high:+.3g})"
    texts = [f"{len(row.seeds)}", f"{row.after:.3g}", f"{row.before:.3g}", difference, f"{row.p_value:.2g}"]
    return [f"{row.second} against {row.first}", *(Link(text, target) for text in texts)]


def _metric_interval(row: MetricComparison) -> figures.Interval:
    assert row.difference is not None and row.low is not None and row.high is not None
    label = f"{row.second} against {row.first}"
    return figures.Interval(label, row.difference, row.low, row.high, row.low > 0 or row.high < 0)


def _budgets(report: StudyReport) -> Iterator[Part]:
    yield Heading("Equal budgets", "budgets")
    if not report.budgets:
        yield Paragraph("Fewer than two seeds of any two arms have validated within a common budget.")
        return
    yield Paragraph(
        "Validation accuracy at the largest budget that all runs of both arms reached. Intervals are over seeds only, "
        "by Student's t, and are not corrected for the number of comparisons. A pair is missing if one of its runs "
        "validated nothing within the budget of the others."
    )
    rows: list[list[Cell]] = []
    for row in report.budgets:
        target = f"#{_anchor(row.second)}"
        texts = [f"{row.amount:,.0f} {UNITS[row.budget]}", f"{len(row.seeds)}", points(row)]
        rows.append([f"{row.second} against {row.first}", *(Link(text, target) for text in texts)])
    yield Table(("Arm against arm", "Budget", "Seeds", "Difference"), rows)
    for budget in dict.fromkeys(row.budget for row in report.budgets):
        lines = {arm.name: _lines(report, arm.name, budget) for arm in report.arms}
        caption = f"Validation accuracy of each run over {UNITS[budget]}"
        yield Drawing(f"curves-{budget}", figures.curves(lines, caption, UNITS[budget]), caption)


def _lines(report: StudyReport, arm: str, budget: Budget) -> list[list[tuple[float, float]]]:
    return [
        [(point.used(budget), point.accuracy) for point in run.curve]
        for run in report.runs
        if run.arm == arm and run.curve
    ]


def _runs(report: StudyReport, job_url: JobUrl) -> Iterator[Part]:
    yield Heading("Runs", "runs")
    yield Paragraph("Each number leads to its job.")
    for arm in report.arms:
        yield Heading(arm.name, _anchor(arm.name), 3)
        head = ("Seed", "Warm-up", "Training", "Evaluation", *(f"Accuracy on {split}" for split in report.splits))
        rows = [_run(report.splits, run, job_url) for run in report.runs if run.arm == arm.name]
        yield Table((*head, "Slot-hours"), rows)


def _run(splits: Sequence[str], run: StudyRun, job_url: JobUrl) -> list[Cell]:
    def linked(text: str | None, job: UUID | None) -> Cell:
        if text is None or job is None:
            return NONE
        return text if run.recorded else Link(text, job_url(job))

    means = [run.accuracies.get(split) for split in splits]
    return [
        linked(f"{run.seed}{' (recorded)' * run.recorded}", run.training) if run.training else f"{run.seed}",
        linked("job", run.warm_up),
        linked(run.training_status, run.training),
        linked(run.evaluation_status, run.evaluation),
        *(linked(None if mean is None else f"{mean:.1%}", run.evaluation) for mean in means),
        linked(f"{run.slot_hours:.2f}", run.training),
    ]
