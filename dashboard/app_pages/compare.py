"""Curves of several jobs in shared charts: /compare?jobs=ID,ID."""

from uuid import UUID

import streamlit as st

from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.cards import Card, Line, metrics_of
from dashboard.forms import job_picker
from dashboard.forms.job_picker import Wanted
from dashboard.markup import escape, job_link, status_chip, table
from dashboard.palette import MODELS
from dashboard.reads import catalogue, live, service
from dashboard.views import evaluation_table
from dashboard.views.compare_curves import (
    AXES,
    RATE,
    Attempts,
    Axis,
    JobCurves,
    JobLine,
    group_name,
    job_lines,
    seed_groups,
)
from dashboard.views.spec_diff import flat

# Each card has one metric; its lines are the jobs.
CARDS = (
    Card(
        "accuracy",
        "Validation accuracy",
        (Line("", "validation/accuracy"),),
        hint="Higher is better. Training never uses validation data.",
        unit="accuracy",
        share="of_all",
    ),
    Card(
        "train",
        "Train accuracy",
        (Line("", "reward/answer_accuracy"),),
        hint="It rises first. Compare it with validation accuracy.",
        unit="accuracy",
        share="of_all",
    ),
    Card("entropy", "Policy entropy", (Line("", "exploration/entropy"),)),
    Card("rareness", "Rareness weight |A|", (Line("", "rareness/mean"),), unit="mean |A|"),
    Card("gap", "Gap to the expert", (Line("", "expert/gap_mean"),)),
    Card("length", "Completion length", (Line("", "length/mean"),)),
    Card("loss", "Loss", (Line("", "loss/total"),)),
    Card("step-time", "Step time", (Line("", "perf/step_seconds"),)),
)


def _names(jobs: list[Job]) -> dict[UUID, str]:
    """Return each job's name, with the beginning of its ID if two jobs have the same name."""
    names = [job.name for job in jobs]
    return {job.id: job.name if names.count(job.name) == 1 else f"{job.name} {str(job.id)[:8]}" for job in jobs}


def _lines(jobs: list[Job], by_config: bool) -> list[JobLine]:
    """Return one line per job, or one per config over different seeds."""
    names = _names(jobs)
    groups = seed_groups(jobs) if by_config else [(job,) for job in jobs]
    return [
        JobLine(names[group[0].id] if len(group) == 1 else group_name(group), MODELS[index], group)
        for index, group in enumerate(groups)
    ]


def _draw(shown: list[Job], by_config: bool, axis: Axis) -> None:
    """Draw the jobs with their status, and the charts. The page runs again when a job ends, which stops its timer."""
    with states.explained("trouble-live"):
        jobs = shown
        with states.tolerated():
            jobs = [states.reread(job) for job in shown]
        lines = _lines(jobs, by_config)
        _legend(lines)
        comparison = live.compared_curves(jobs, (*metrics_of(CARDS), RATE))
        attempts = {}
        with states.tolerated():
            comparison.refresh()
            if axis == "time":
                attempts = {job.id: catalogue.attempts(job.id) for job in jobs}
        _charts(lines, comparison.curves(), axis, attempts)
        if [job.status.final for job in jobs] != [job.status.final for job in shown]:
            st.rerun()


def _charts(lines: list[JobLine], curves: JobCurves, axis: Axis, attempts: Attempts) -> None:
    with st.grid(2, min_column_width=400):
        for card in CARDS:
            (metric,) = metrics_of([card])
            drawn = [*job_lines(lines, curves, metric, axis, attempts)]
            figure = figures.curves(drawn, unit=card.unit_text, x_title=AXES[axis], share=card.share)
            key = f"compare-{axis}-{metric.replace('/', '-')}"
            live_chart.card(card.title, card.text, figure, key=key)


def _differences(jobs: list[Job]) -> None:
    specs = [flat(job.spec) for job in jobs]
    fields = sorted({field for spec in specs for field in spec} - {"name"})
    different = [field for field in fields if len({spec.get(field) for spec in specs}) > 1]
    st.subheader("Config diff", anchor=False)
    if not different:
        st.caption("Same config; only the names differ.")
        return
    names = _names(jobs)
    rows = (
        f"<tr><td><code>{escape(field)}</code></td>"
        + "".join(f"<td>{escape(spec.get(field, '–'))}</td>" for spec in specs)
        + "</tr>"
        for field in different
    )
    st.html(table(("Field", *(names[job.id] for job in jobs)), rows))


def _legend(lines: list[JobLine]) -> None:
    st.html(
        '<div style="display:flex;flex-wrap:wrap;gap:.4rem 1.4rem">'
        + "".join(
            f'<span><span aria-hidden="true" style="color:{line.colour}">●</span> {job_link(job.id, job.name)} '
            f"{status_chip(job.status)} step {job.step}</span>"
            for line in lines
            for job in line.jobs
        )
        + "</div>"
    )


def _evaluated(jobs: list[Job]) -> None:
    """Draw the latest evaluation of each job, with paired differences."""
    st.subheader("Evaluations", anchor=False)
    latest = [id for job in jobs if (id := _latest_evaluation(job)) is not None]
    evaluations = [service.job(str(id)) for id in dict.fromkeys(latest)]
    if not evaluations:
        st.caption("No evaluations yet. To measure checkpoints on a dataset: New job, type Evaluation.")
        return
    evaluation_table.draw(evaluations)


def _latest_evaluation(job: Job) -> UUID | None:
    done = [other for other in service.derived(job.id) if other.kind == "evaluate"]
    succeeded = [other for other in done if other.status is JobStatus.SUCCEEDED]
    return max(succeeded, key=lambda other: other.created_at).id if succeeded else None


def page() -> None:
    """Draw the page."""
    st.title("Compare", anchor=False)
    jobs = job_picker.pick_jobs("Jobs", Wanted("train"), key="compared-jobs")
    if len(jobs) < 2:
        states.empty(
            "Select two or more jobs", "Their curves appear in shared charts, with the differences of their configs."
        )
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        axis: Axis = st.segmented_control(
            "X axis", list(AXES), default="step", required=True, key="axis", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        by_config = len(seed_groups(jobs)) < len(jobs) and st.toggle(
            "Group seeds", key="seeds", help="One line for jobs that differ in their seeds only: mean, min and max."
        )
    runs = any(not job.status.final for job in jobs)
    st.fragment(_draw, run_every=service.LIST_TICK if runs else None)(jobs, by_config, axis)
    _evaluated(jobs)
    _differences(jobs)


with states.explained():
    page()
