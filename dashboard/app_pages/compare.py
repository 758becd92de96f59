"""Several jobs over one another, at an address that can be shared: /compare?jobs=ID,ID."""

from collections.abc import Iterator
from typing import Literal
from uuid import UUID

import streamlit as st

from dashboard import charts, data, live_chart, states
from dashboard.charts import Curve
from dashboard.markup import escape, job_link, status_chip, table
from dashboard.palette import MODELS
from dashboard.panels.common import grid
from dashboard.series import Series
from dashboard.specs import flat
from jobs.schemas import Curves, Job

OFFERED = 100  # newest jobs to choose from
MOST = 8  # at once: as many as there are colours that can be told apart
Axis = Literal["step", "time"]
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


def _chosen() -> list[UUID]:
    found = []
    for text in st.query_params.get("jobs", "").split(","):
        try:
            found.append(UUID(text))
        except ValueError:
            continue
    return list(dict.fromkeys(found))[:MOST]


def _choose() -> list[Job]:
    """The jobs to compare: those of the address, or chosen among the newest."""
    asked = [data.job(str(id)) for id in _chosen()]
    newest = data.jobs(kind="train", limit=OFFERED).data
    offered: dict[UUID, str] = {job.id: job.name for job in [*asked, *newest]}
    ids: list[UUID] = st.multiselect(
        "Jobs",
        list(offered),
        default=[job.id for job in asked],
        format_func=lambda id: f"{offered[id]} ({str(id)[:8]})",
        max_selections=MOST,
        placeholder="Choose two or more training jobs",
    )
    st.query_params["jobs"] = ",".join(map(str, ids))
    return [data.job(str(id)) for id in ids]


def _names(jobs: list[Job]) -> dict[UUID, str]:
    """What to call each: its name, with the beginning of its id where two have the same."""
    names = [job.name for job in jobs]
    return {job.id: job.name if names.count(job.name) == 1 else f"{job.name} {str(job.id)[:8]}" for job in jobs}


def _lines(jobs: list[Job], found: Curves, metric: str, axis: Axis) -> Iterator[Curve]:
    names, starts = _names(jobs), {job.id: job.started_at for job in jobs}
    colours = {job.id: MODELS[index] for index, job in enumerate(jobs)}
    for series in found.series:
        if series.name != metric:
            continue
        places = series.last_step
        began = starts[series.job_id]
        if axis == "time" and began is not None:
            places = [int((at - began).total_seconds()) for at in series.ts]
        sparse = metric.startswith("validation/")
        yield Curve(
            names[series.job_id],
            Series.of(places, series.mean, series.min, series.max),
            colours[series.job_id],
            sparse=sparse,
        )


def _draw(jobs: list[Job], axis: Axis) -> None:
    found = None
    with states.tolerated():
        found = data.comparison(tuple(str(job.id) for job in jobs), tuple(chart[0] for chart in CHARTS))
    if found is None:
        return
    cards = []
    for metric, title, hint, unit, share in CHARTS:
        x_title = "seconds since the job began" if axis == "time" else "step"
        figure = charts.curves([*_lines(jobs, found, metric, axis)], unit=unit, x_title=x_title, share=share)
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


def _legend(jobs: list[Job]) -> None:
    st.html(
        '<div style="display:flex;flex-wrap:wrap;gap:.4rem 1.4rem">'
        + "".join(
            f'<span><span aria-hidden="true" style="color:{MODELS[index]}">●</span> {job_link(job.id, job.name)} '
            f"{status_chip(job.status)} step {job.step}</span>"
            for index, job in enumerate(jobs)
        )
        + "</div>"
    )


def page() -> None:
    st.title("Compare", anchor=False)
    jobs = _choose()
    if len(jobs) < 2:
        states.empty(
            "Choose two jobs or more", "Their curves are then drawn over one another, and their specs compared."
        )
        return
    axis = st.segmented_control(
        "By", ["step", "time"], default="step", required=True, key="axis", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    _legend(jobs)
    live = any(not job.status.final for job in jobs)
    st.fragment(_draw, run_every=data.LIST_TICK if live else None)(jobs, "time" if axis == "time" else "step")
    _differences(jobs)


with states.explained():
    page()
