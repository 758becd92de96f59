"""Curves of several jobs in shared charts: /compare?jobs=ID,ID."""

from itertools import count
from uuid import UUID

import streamlit as st

from calibrl.schemas import JobSummary, TrainSpec
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.cards import Card, Line, metrics_of
from dashboard.forms import job_picker
from dashboard.forms.job_picker import Wanted
from dashboard.markup import job_link, status_chip
from dashboard.palette import MODELS
from dashboard.reads import catalogue, live, service
from dashboard.views import chart_look, compare_relations, compare_tables, evaluation_table, run_rows, saved_views
from dashboard.views.compare_curves import (
    RATE,
    SECONDS,
    Attempts,
    JobCurves,
    JobLine,
    group_name,
    job_lines,
    seed_groups,
)

MOST_METRICS = 24  # charts
SPEC = tuple(TrainSpec.model_fields)  # all fields of a spec
MOST_IN_LEGEND = 4  # lines; more make the legend of a chart higher than the chart. The page has a legend of its own.
SIGNS = {  # of dashes, in the legend; with the colours they tell 56 jobs apart
    "solid": "●",
    "dash": "╍╍",
    "dot": "┅┅",
    "dashdot": "━•",
    "longdash": "━━",
    "longdashdot": "━━•",
    "2px 6px": "• •",
}
DASHES = tuple(SIGNS)
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


def _names(jobs: list[JobSummary]) -> dict[UUID, str]:
    """Return each job's name, with the beginning of its ID if two jobs have the same name."""
    names = [job.name for job in jobs]
    return {job.id: job.name if names.count(job.name) == 1 else f"{job.name} {str(job.id)[:8]}" for job in jobs}


def _places(jobs: list[JobSummary]) -> dict[UUID, int]:
    """Return a number per job, from which its colour and dash follow. A job keeps it when others come and go."""
    known: dict[UUID, int] = st.session_state.setdefault("compare-places", {})
    taken = {known[job.id] for job in jobs if job.id in known}
    free = (number for number in count() if number not in taken)
    known |= {job.id: next(free) for job in jobs if job.id not in known}
    return known


def _lines(jobs: list[JobSummary], by_config: bool) -> list[JobLine]:
    """Return one line per job, or one per config over different seeds."""
    names, places = _names(jobs), _places(jobs)
    groups = seed_groups(jobs) if by_config else [(job,) for job in jobs]
    lines = []
    for group in groups:
        more, colour = divmod(places[group[0].id], len(MODELS))
        name = names[group[0].id] if len(group) == 1 else group_name(group)
        lines.append(JobLine(name, MODELS[colour], group, DASHES[more % len(DASHES)]))
    return lines


def _cards() -> tuple[Card, ...]:
    """Return the cards of the chosen metrics."""
    known = {metrics_of([card])[0]: card for card in CARDS}
    chosen: list[str] = st.session_state.get("metrics") or list(known)
    return tuple(known.get(name) or Card(name, name, (Line("", name),), value_format=".4g") for name in chosen)


def _draw(shown: list[JobSummary], by_config: bool, baseline: UUID | None) -> None:
    """Draw the jobs with their status, the values and the charts. The page runs again when a job ends, which stops its
    timer."""
    with states.explained("trouble-live"):
        jobs = shown
        with states.tolerated():
            jobs = _reread(shown)
        lines, cards, axis = _lines(jobs, by_config), _cards(), chart_look.axis()
        _legend(lines)
        comparison = live.compared_curves(jobs, (*metrics_of(cards), RATE, SECONDS))
        attempts = {}
        with states.tolerated():
            comparison.refresh()
            if axis == "time":
                attempts = {job.id: catalogue.attempt_times(job) for job in jobs}
        curves = comparison.curves()
        found = compare_tables.values(jobs, curves, metrics_of(cards))
        _values(jobs, found, cards, baseline)
        colours = {job.id: line.colour for line in lines for job in line.jobs}
        compare_relations.draw(jobs, found, _names(jobs), colours)
        _charts(lines, cards, curves, attempts)
        if [job.status.final for job in jobs] != [job.status.final for job in shown]:
            st.rerun()


def _reread(shown: list[JobSummary]) -> list[JobSummary]:
    """The current state of the jobs. The page runs again if one is gone, or the viewer has no access any more."""
    now = {job.id: job for job in service.jobs_of([job.id for job in shown if not job.status.final])}
    if any(not job.status.final and job.id not in now for job in shown):
        st.rerun()
    return [now[job.id].model_copy(update={"fields": job.fields}) if job.id in now else job for job in shown]


def _values(
    jobs: list[JobSummary], found: compare_tables.Values, cards: tuple[Card, ...], baseline: UUID | None
) -> None:
    with st.expander("Last and best values", expanded=True, icon=":material/table:"):
        titles = {metrics_of([card])[0]: card.title for card in cards}
        st.html(compare_tables.value_table(jobs, found, titles, _names(jobs), baseline))


def _charts(lines: list[JobLine], cards: tuple[Card, ...], curves: JobCurves, attempts: Attempts) -> None:
    axis, look = chart_look.axis(), chart_look.current(legend=len(lines) <= MOST_IN_LEGEND)
    with st.grid(2, min_column_width=400):
        for card in cards:
            (metric,) = metrics_of([card])
            drawn = [*job_lines(lines, curves, metric, axis, attempts)]
            figure = figures.curves(
                drawn, unit=card.unit_text, share=card.share, value_format=card.value_format, look=look
            )
            key = f"compare-{axis}-{metric.replace('/', '-')}"
            live_chart.card(card.title, card.text, figure, key=key)


def _differences(jobs: list[JobSummary]) -> None:
    with st.expander("Config diff", expanded=True, icon=":material/difference:"):
        found = compare_tables.differences(jobs, _names(jobs))
        if found is None:
            st.caption("Same config; only the names differ.")
        else:
            st.html(found)


def _legend(lines: list[JobLine]) -> None:
    st.html(
        '<div style="display:flex;flex-wrap:wrap;gap:.4rem 1.4rem">'
        + "".join(
            f'<span><span aria-hidden="true" style="color:{line.colour}">{SIGNS[line.dash]}</span> '
            f"{job_link(job.id, job.name)} {status_chip(job.status)} step {job.step}</span>"
            for line in lines
            for job in line.jobs
        )
        + "</div>"
    )


def _evaluated(jobs: list[JobSummary]) -> None:
    """Draw the latest evaluation of each job, with paired differences."""
    st.subheader("Evaluations", anchor=False)
    latest = service.latest_evaluations([job.id for job in jobs])
    evaluations = {latest[job.id].id: latest[job.id] for job in jobs if job.id in latest}
    if not evaluations:
        st.caption("No evaluations yet. To measure checkpoints on a dataset: New job, type Evaluation.")
        return
    evaluation_table.draw([*evaluations.values()])


def page() -> None:
    """Draw the page."""
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Compare", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        saved_views.draw()
    jobs = job_picker.pick_jobs("Jobs", Wanted("train", fields=SPEC), key="compared-jobs")
    if len(jobs) < 2:
        states.empty(
            "Select two or more jobs", "Their curves appear in shared charts, with the differences of their configs."
        )
        return
    by_config, baseline = _choose(jobs)
    runs = any(not job.status.final for job in jobs)
    _differences(jobs)
    st.fragment(_draw, run_every=service.LIST_TICK if runs else None)(jobs, by_config, baseline)
    _evaluated(jobs)


def _choose(jobs: list[JobSummary]) -> tuple[bool, UUID | None]:
    """Draw the choices of the comparison. Return whether seeds are grouped, and the baseline."""
    known = [metrics_of([card])[0] for card in CARDS]
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    left.multiselect(
        "Metrics", [*dict.fromkeys([*known, *run_rows.known_metrics()])], known, key="metrics", bind="query-params",
        max_selections=MOST_METRICS, accept_new_options=True, placeholder="Metric",
    )  # fmt: skip
    names = _names(jobs)
    baseline = right.selectbox(
        "Baseline", [None, *names], format_func=lambda id: names.get(id, "None"), key="baseline", bind="query-params",
        help="The table of values shows the difference of each job from it.",
    )  # fmt: skip
    chart_look.choose()
    by_config = len(seed_groups(jobs)) < len(jobs) and st.toggle(
        "Group seeds", key="seeds", bind="query-params",
        help="One line for jobs that differ in their seeds only: mean, min and max.",
    )  # fmt: skip
    return by_config, baseline


with states.explained():
    page()
