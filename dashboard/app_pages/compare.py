"""Several jobs over one another, at an address that can be shared: /compare?jobs=ID,ID."""

from typing import Literal
from uuid import UUID

import streamlit as st

from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.forms import job_picker
from dashboard.markup import escape, job_link, status_chip, table
from dashboard.palette import MODELS
from dashboard.panels.common import grid
from dashboard.reads import catalogue, data, live
from dashboard.views import evaluation_table
from dashboard.views.compare_curves import AXES, RATE, Axis, Found, Line, curves, grouped
from dashboard.views.spec_diff import flat

Share = Literal["of_all", "small"]
# Metric, title, what to look for, unit, and whether it is a share.
CHARTS: tuple[tuple[str, str, str, str, Share | None], ...] = (
    ("validation/accuracy", "Held-out accuracy", "Higher is better; what training never saw.", "accuracy", "of_all"),
    (
        "reward/answer_accuracy",
        "Training accuracy",
        "Rises first; compare it with the held-out one.",
        "accuracy",
        "of_all",
    ),
    ("exploration/entropy", "Policy entropy", "A fall to zero: the policy no longer explores.", "nats a token", None),
    ("rareness/mean", "Rareness |A|", "Zero: every group agrees, and nothing is learned.", "mean |A|", None),
    ("expert/gap_mean", "Gap to the expert", "Far from zero: the expert speaks another language.", "nats", None),
    ("length/mean", "Completion length", "A sudden climb often means rambling.", "tokens", None),
    ("loss/total", "Loss", "Its level says little; jumps say more.", "loss", None),
    ("perf/step_seconds", "Time a step", "Lower is faster.", "seconds", None),
)


def _names(jobs: list[Job]) -> dict[UUID, str]:
    """What to call each: its name, with the beginning of its id where two have the same."""
    names = [job.name for job in jobs]
    return {job.id: job.name if names.count(job.name) == 1 else f"{job.name} {str(job.id)[:8]}" for job in jobs}


def _lines(jobs: list[Job], together: bool) -> list[Line]:
    """A line a job; or a line for all seeds of a recipe."""
    names = _names(jobs)
    groups = grouped(jobs) if together else [(job,) for job in jobs]
    return [
        Line(
            names[group[0].id] if len(group) == 1 else f"{group[0].name}, {len(group)} seeds",
            MODELS[index],
            group,
        )
        for index, group in enumerate(groups)
    ]


def _draw(jobs: list[Job], lines: list[Line], axis: Axis) -> None:
    comparison = live.comparison(jobs, (*(chart[0] for chart in CHARTS), RATE))
    with states.explained("trouble-live"):
        with states.tolerated():
            comparison.refresh()
        _charts(lines, comparison.curves(), axis)


def _charts(lines: list[Line], found: Found, axis: Axis) -> None:
    cards = []
    for metric, title, hint, unit, share in CHARTS:
        drawn = [*curves(lines, found, metric, axis)]
        figure = figures.curves(drawn, unit=unit, x_title=AXES[axis], share=share)
        key = f"compare-{axis}-{metric.replace('/', '-')}"
        cards.append(
            lambda title=title, hint=hint, figure=figure, key=key: live_chart.card(title, hint, figure, key=key)
        )
    grid(cards)


def _differences(jobs: list[Job]) -> None:
    specs = [flat(job.spec) for job in jobs]
    fields = sorted({field for spec in specs for field in spec} - {"name"})
    different = [field for field in fields if len({spec.get(field) for spec in specs}) > 1]
    st.subheader("What differs", anchor=False)
    if not different:
        st.caption("Nothing but their names: the same spec.")
        return
    names = _names(jobs)
    rows = (
        f"<tr><td><code>{escape(field)}</code></td>"
        + "".join(f"<td>{escape(spec.get(field, '–'))}</td>" for spec in specs)
        + "</tr>"
        for field in different
    )
    st.html(table(("Field", *(names[job.id] for job in jobs)), rows))


def _legend(lines: list[Line]) -> None:
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
    """What the newest evaluation of each reached, and whether they can be told apart."""
    st.subheader("How they were evaluated", anchor=False)
    newest = [found for job in jobs if (found := _newest_evaluation(job)) is not None]
    evaluations = [data.job(str(id)) for id in dict.fromkeys(newest)]
    if not evaluations:
        st.caption("None of them was evaluated yet: New job, Evaluation measures their checkpoints on a data set.")
        return
    evaluation_table.side_by_side(evaluations)


def _newest_evaluation(job: Job) -> UUID | None:
    done = [other for other in data.derived(job.id) if other.kind == "evaluate"]
    succeeded = [other for other in done if other.status is JobStatus.SUCCEEDED]
    return max(succeeded, key=lambda other: other.created_at).id if succeeded else None


def page() -> None:
    st.title("Compare", anchor=False)
    jobs = job_picker.several(
        "Jobs", catalogue.newest(None, "train"), key="compared-jobs", placeholder="Choose two or more training jobs"
    )
    if len(jobs) < 2:
        states.empty(
            "Choose two jobs or more", "Their curves are then drawn over one another, and their specs compared."
        )
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        axis: Axis = st.segmented_control(
            "By", list(AXES), default="step", required=True, key="axis", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        together = len(grouped(jobs)) < len(jobs) and st.toggle(
            "Seeds as one", key="seeds", value=True, help="The mean of jobs that differ in their seeds only, in a band."
        )
    lines = _lines(jobs, together)
    _legend(lines)
    live = any(not job.status.final for job in jobs)
    st.fragment(_draw, run_every=data.LIST_TICK if live else None)(jobs, lines, axis)
    _evaluated(jobs)
    _differences(jobs)


with states.explained():
    page()
