"""The report of a study: differences, bands over seeds, ranks, parallel coordinates over axes, arms and runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

import streamlit as st

from calibrl.schemas import JobStatus, Study, StudyReport
from calibrl.schemas.study_reports import MetricComparison, StudyComparison, StudyDifference, StudyPoint, StudyRun
from dashboard.charts import figures, live_chart, study_figures
from dashboard.charts.figures import Curve
from dashboard.charts.look import Look
from dashboard.charts.series import StepSeries
from dashboard.charts.study_figures import DifferenceRow, Value
from dashboard.markup import chip, escape, job_link, status_chip, table
from dashboard.palette import MODELS, NEUTRAL, POLICY
from dashboard.views.spec_diff import flat

Axis = Literal["step", "rollouts", "seconds"]
AXES: dict[Axis, str] = {"step": "step", "rollouts": "rollouts", "seconds": "seconds of step time"}
LEGEND_ROW = 20  # pixels
MAX_FIELDS = 8  # axes of the parallel coordinates, without the measure
NONE = "–"
DIFFERENCES = (
    "Accuracy of the first arm minus that of the second, paired by seed and prompt. Lines: intervals of "
    "{confidence:.1%}. Adjusted by Holm's method for the verdicts."
)
BANDS = "Mean over the seeds of each arm, with a band from min to max. Training never uses validation data."
RANKS = "Rank of each arm by accuracy on {primary}, over the seeds with which all arms are evaluated."
PARALLEL = "One line per arm: its changes of the base spec, and its mean accuracy on {primary} on the last axis."


def draw(study: Study, report: StudyReport) -> None:
    """Draw the report of the runs that have ended so far."""
    colours = {arm.name: MODELS[number % len(MODELS)] for number, arm in enumerate(report.arms)}
    for number, split in enumerate(report.splits):
        _differences(report, split, f"{number}")
    _bands(report, colours)
    with st.grid(2, min_column_width=400):
        _ranks(report)
        _parallel(study, report, colours)
    if report.metrics:
        st.subheader("Training metrics", anchor=False)
        st.caption("Means over the last quarter of the steps. Intervals are over seeds and are not corrected.")
        titles = ("Arm − arm", "Metric", "Seeds", "Before", "After", "Difference")
        st.html(table(titles, map(_metric, report.metrics)))
    st.subheader("Arms", anchor=False)
    _arms(report, colours)
    st.subheader("Runs", anchor=False)
    st.html(table(_run_titles(report), (_run(report, run) for run in report.runs)))


def _differences(report: StudyReport, split: str, key: str) -> None:
    rows = [row for row in report.comparisons if row.split == split]
    drawn = [
        DifferenceRow(_pair(row), 100 * row.difference, 100 * row.low, 100 * row.high, row.distinguishable)
        for row in rows
        if row.difference is not None and row.low is not None and row.high is not None
    ]
    title = f"Differences on {split}" + (" (primary measure)" if split == report.primary else "")
    hint = DIFFERENCES.format(confidence=report.confidence)
    empty = "No pair of arms has two evaluated seeds yet"
    live_chart.card(title, hint, study_figures.differences(drawn), key=f"differences-{key}", empty=empty)
    titles = ("Arm − arm", "Seeds", "Prompts", "Difference", "p (Holm)", "Result", "To settle it")
    st.html(table(titles, map(_comparison, rows)))


def _pair(row: StudyDifference) -> str:
    return f"{row.second} − {row.first}"


def _points(row: StudyDifference) -> str:
    if row.difference is None or row.low is None or row.high is None:
        return NONE
    between = f"{100 * row.low:+.1f} to {100 * row.high:+.1f}"
    return f'{100 * row.difference:+.1f} pp <span style="opacity:.75;white-space:nowrap">({between})</span>'


def _comparison(row: StudyComparison) -> str:
    if row.difference is None:
        result = chip("two seeds are needed", NEUTRAL)
    elif row.distinguishable:
        result = chip("better" if row.difference > 0 else "worse", POLICY)
    else:
        result = chip("not distinguishable", NEUTRAL)
    p_value = NONE if row.adjusted_p_value is None else f"{row.adjusted_p_value:.2g}"
    needed = {"seeds": row.needed_seeds, "prompts": row.needed_prompts}
    ways = [f"{count:,} {name}" for name, count in needed.items() if count is not None and not row.distinguishable]
    return (
        f'<tr><td>{escape(_pair(row))}</td><td data-label="Seeds">{len(row.seeds)}</td>'
        f'<td data-label="Prompts">{row.prompts:,}</td><td data-label="Difference">{_points(row)}</td>'
        f'<td data-label="p">{p_value}</td><td>{result}</td>'
        f'<td data-label="To settle it">{" or ".join(ways) or NONE}</td></tr>'
    )


def _metric(row: MetricComparison) -> str:
    numbers = (row.difference, row.low, row.high)
    measured = [f"{number:+.4g}" for number in numbers if number is not None]
    difference = f"{measured[0]} ({measured[1]} to {measured[2]})" if len(measured) == len(numbers) else NONE
    return (
        f'<tr><td>{escape(_pair(row))}</td><td data-label="Metric"><code>{escape(row.metric)}</code></td>'
        f'<td data-label="Seeds">{len(row.seeds)}</td><td data-label="Before">{row.before:.4g}</td>'
        f'<td data-label="After">{row.after:.4g}</td><td data-label="Difference">{difference}</td></tr>'
    )


def _bands(report: StudyReport, colours: Mapping[str, str]) -> None:
    axis: Axis = st.segmented_control(
        "X axis", list(AXES), default="step", required=True, key="study-axis", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    lines = [*_curves(report, colours, axis)]
    drawn = figures.curves(lines, unit="accuracy", look=Look(x_title=AXES[axis]), share="small")
    height = figures.HEIGHT + LEGEND_ROW * len(lines)  # the legend has a row per arm
    figure = figures.ChartFigure(drawn.data, drawn.layout | {"height": height})
    live_chart.card("Validation accuracy", BANDS, figure, key=f"bands-{axis}", empty="No run has validated yet")


def _curves(report: StudyReport, colours: Mapping[str, str], axis: Axis) -> Iterator[Curve]:
    """Yield the validations of each arm over steps that all its runs have reached; a place is the mean over seeds."""
    for arm in report.arms:
        runs = [run.curve for run in report.runs if run.arm == arm.name and run.curve]
        if not runs:
            continue
        by_step = [{point.step: point for point in curve} for curve in runs]
        steps = sorted(set.intersection(*({*points} for points in by_step)))
        points = [[run[step] for run in by_step] for step in steps]
        values = [[point.accuracy for point in group] for group in points]
        series = StepSeries.of(
            [round(sum(_place(point, axis) for point in group) / len(group)) for group in points],
            [sum(group) / len(group) for group in values],
            [*map(min, values)],
            [*map(max, values)],
        )
        yield Curve(arm.name, series, colours[arm.name], sparse=True, band=len(runs) > 1)


def _place(point: StudyPoint, axis: Axis) -> float:
    return point.step if axis == "step" else point.used(axis)


def _ranks(report: StudyReport) -> None:
    found = {
        arm.name: [run.rank for run in report.runs if run.arm == arm.name and run.rank is not None]
        for arm in report.arms
    }
    hint = RANKS.format(primary=report.primary or "the primary dataset")
    empty = "No seed is evaluated for all arms yet"
    live_chart.card("Ranks", hint, study_figures.ranks(found), key="ranks", empty=empty)


def _parallel(study: Study, report: StudyReport, colours: Mapping[str, str]) -> None:
    hint = PARALLEL.format(primary=report.primary or "the primary dataset")
    figure = study_figures.parallel(*settings(study.spec["base"], report), colours)
    live_chart.card("Changes and accuracy", hint, figure, key="parallel", empty="No arm with a change is evaluated yet")


def settings(base: Mapping[str, Any], report: StudyReport) -> tuple[dict[str, dict[str, Value]], str]:
    """Return the fields in which evaluated arms differ, with their values by arm and the mean accuracy last; and the
    name of the accuracy."""
    measure = f"accuracy on {report.primary}"
    measured = [arm for arm in report.arms if report.primary in arm.accuracies]
    own = {arm.name: flat(_nested(arm.changes)) if arm.changes else {} for arm in measured}
    default = flat(dict(base))
    fields = dict.fromkeys(field for values in own.values() for field in values)
    arms: dict[str, dict[str, Value]] = {
        name: {field: _value(values.get(field, default.get(field, "default"))) for field in fields}
        for name, values in own.items()
    }
    kept = [field for field in fields if study_figures.distinct([values[field] for values in arms.values()])]
    shown: dict[str, dict[str, Value]] = {}
    for arm in measured:
        accuracy = arm.accuracies[str(report.primary)]
        shown[arm.name] = {field: arms[arm.name][field] for field in kept[:MAX_FIELDS]} | {measure: accuracy}
    return shown, measure


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes by path as nested mappings, so that `algorithm` and `algorithm.type` meet."""
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        place = nested
        *parents, last = path.split(".")
        for key in parents:
            inner = place.get(key)
            place[key] = place = inner if isinstance(inner, dict) else {}
        place[last] = value
    return nested


def _value(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text


def _arms(report: StudyReport, colours: Mapping[str, str]) -> None:
    titles = ("Arm", "Changes", "Seeds", *(f"On {split}" for split in report.splits), "Mean rank", "Slot-hours")
    rows = []
    for arm in report.arms:
        stopped = chip(f"stopped after {arm.stopped_after} seeds", NEUTRAL) if arm.stopped_after else ""
        changes = ", ".join(f"{path}={json.dumps(value)}" for path, value in arm.changes.items()) or NONE
        rank = NONE if arm.mean_rank is None else f"{arm.mean_rank:.2f}"
        dot = f'<span aria-hidden="true" style="color:{colours[arm.name]}">●</span>'
        rows.append(
            f'<tr><td>{dot} {escape(arm.name)} {stopped}</td><td style="overflow-wrap:anywhere">{escape(changes)}</td>'
            f'<td data-label="Seeds">{len(arm.seeds)}</td>{_accuracies(report.splits, arm.accuracies)}'
            f'<td data-label="Mean rank">{rank}</td><td data-label="Slot-hours">{arm.slot_hours:.2f}</td></tr>'
        )
    st.html(table(titles, rows))


def _accuracies(splits: Sequence[str], found: Mapping[str, float]) -> str:
    cells = (f"{found[split]:.1%}" if split in found else NONE for split in splits)
    return "".join(f'<td data-label="{escape(split)}">{cell}</td>' for split, cell in zip(splits, cells, strict=True))


def _run_titles(report: StudyReport) -> tuple[str, ...]:
    on_splits = (f"On {split}" for split in report.splits)
    return ("Arm", "Seed", "Warm-up", "Training", "Evaluation", *on_splits, "Rank", "Slot-hours")


def _run(report: StudyReport, run: StudyRun) -> str:
    rank = NONE if run.rank is None else f"{run.rank:g}"
    return (
        f'<tr><td>{escape(run.arm)}</td><td data-label="Seed">{run.seed}{" (recorded)" * run.recorded}</td>'
        f'<td data-label="Warm-up">{_job(run, run.warm_up, None)}</td>'
        f'<td data-label="Training">{_job(run, run.training, run.training_status)}</td>'
        f'<td data-label="Evaluation">{_job(run, run.evaluation, run.evaluation_status)}</td>'
        f"{_accuracies(report.splits, run.accuracies)}"
        f'<td data-label="Rank">{rank}</td><td data-label="Slot-hours">{run.slot_hours:.2f}</td></tr>'
    )


def _job(run: StudyRun, id: UUID | None, status: JobStatus | None) -> str:
    if id is None:
        return NONE
    short = str(id)[:8]
    return f"{short if run.recorded else job_link(id, short)} {status_chip(status) if status else ''}"
