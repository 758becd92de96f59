"""The table of runs: chosen fields of the specs and metrics, sorted by click, filtered and grouped; actions on the
selected ones.

The table is not live: rows that move would carry the selection to other jobs.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import streamlit as st
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from calibrl.client import CalibrlError, Client
from calibrl.schemas import JobSummary, Page, Series
from calibrl.schemas.jobs import parse_label
from dashboard import states
from dashboard.forms.job_picker import MAX_JOBS
from dashboard.markup import as_markdown, clock, escape, table
from dashboard.reads import service
from dashboard.views import run_rows
from dashboard.views.job_actions import DEPENDENTS, EFFECT_ON_SEVERAL
from dashboard.views.run_rows import Run, RunGroup

MOST_RUNS = 200  # rows
MOST_COLUMNS = 16  # chosen fields, and chosen metrics
CURVES_PER_CALL = 32  # jobs
FIELDS = ("algorithm.type", "optimizer.lr", "seed")  # columns at first
METRICS = ("validation/accuracy", "reward/answer_accuracy")
NOT_GROUPED = "none"
READ = "runs-read"  # session key: `Shown`


class Shown(NamedTuple):
    """The rows on the page, the request that they answer, and their curves by metric. `number`: of the read; each has
    a new grid, in which no row is selected."""

    request: dict[str, Any]
    page: Page[JobSummary]
    at: datetime
    number: int
    curves: dict[str, dict[UUID, Series]]


def draw(query: dict[str, Any]) -> None:
    """Draw the table of the jobs that a query finds: arguments of `Client.jobs`."""
    fields, metrics = _columns()
    shown = _read(query | {"fields": fields, "limit": MOST_RUNS})
    _read_curves(shown, [name for name in metrics if name not in shown.curves])
    rows = run_rows.runs(shown.page.data, shown.curves, metrics)
    rows, by = _narrowed(rows, fields)
    more = f" (first {MOST_RUNS}; narrow the filters to see the others)" if shown.page.has_more else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{len(rows)} of {len(shown.page.data)} jobs, read at {clock(shown.at)}{more}")
        st.button("Refresh", icon=":material/refresh:", on_click=_forget, key="runs-refresh")
    if not rows:
        states.empty("No jobs match", "Change the search or the filters.")
        return
    if by != NOT_GROUPED:
        st.html(_groups(run_rows.grouped(rows, by, metrics), by, metrics))
    chosen = _grid(rows, fields, metrics, f"runs-{shown.number}")
    actions([rows[place].job for place in chosen if place < len(rows)])


def _columns() -> tuple[list[str], list[str]]:
    left, right = st.columns(2)
    fields = left.multiselect(
        "Config columns", sorted({*run_rows.known_fields(), *FIELDS}), FIELDS, key="run-fields", bind="query-params",
        max_selections=MOST_COLUMNS, placeholder="Field of the spec", accept_new_options=True,
        help="A field of the spec by its path. Type the path of an item of a list, such as rewards.0.weight.",
    )  # fmt: skip
    named = right.multiselect(
        "Metric columns", run_rows.known_metrics(), METRICS, key="run-metrics", bind="query-params",
        max_selections=MOST_COLUMNS, placeholder="Metric", accept_new_options=True,
        help="Each has two columns: the last and the best value.",
    )  # fmt: skip
    metrics = list(dict.fromkeys(name.strip() for name in named if "*" not in name))
    if families := [name for name in named if "*" in name]:
        right.error(as_markdown(f"A column has one metric. Type its full name instead of {', '.join(families)}."))
    return fields, metrics


def _read(request: dict[str, Any]) -> Shown:
    """The rows that were read for a request, or those of a new read."""
    before: Shown | None = st.session_state.get(READ)
    if before is None or before.request != request:
        number = before.number + 1 if before else 0
        st.session_state[READ] = Shown(request, service.jobs(**request), datetime.now(UTC), number, {})
    shown: Shown = st.session_state[READ]
    return shown


def _forget() -> None:
    """Let the next run of the page read the jobs again."""
    if (before := st.session_state.get(READ)) is not None:
        st.session_state[READ] = before._replace(request={})
    service.clear_job_caches()


def _read_curves(shown: Shown, metrics: Sequence[str]) -> None:
    """Add the curves of these metrics, of jobs that have any."""
    trained = [(job.id, job.attempt, job.step) for job in shown.page.data if job.kind == "train" and job.step]
    found: dict[str, dict[UUID, Series]] = {name: {} for name in metrics}
    for start in range(0, len(trained) if metrics else 0, CURVES_PER_CALL):
        curves = service.few_points(tuple(trained[start : start + CURVES_PER_CALL]), tuple(metrics))
        for (job, name), curve in curves.items():
            found[name][job] = curve
    shown.curves.update(found)


def _narrowed(rows: list[Run], fields: Sequence[str]) -> tuple[list[Run], str]:
    """Draw the filter and the grouping. Return the rows that are left, and by what they are grouped."""
    left, right = st.columns(2)
    pattern = left.text_input(
        "Filter rows", key="run-filter", bind="query-params", max_chars=200,
        placeholder="Regular expression, such as seed:[12]$",
        help="Searched: name, ID, status, user, project, labels and fields.",
    )  # fmt: skip
    labels = sorted({f"label {name}" for run in rows for name in run.job.labels})
    by = right.selectbox(
        "Group by", [NOT_GROUPED, *run_rows.OWN, *fields, *labels], key="run-group", bind="query-params"
    )
    try:
        return run_rows.matching(rows, pattern), by
    except re.error as error:
        left.error(as_markdown(f"Invalid regular expression: {error}"))
        return rows, by


def _groups(groups: Iterable[RunGroup], by: str, metrics: Sequence[str]) -> str:
    """The groups as a table: number of runs, and of each metric the mean of the last values, with min and max."""
    rows = (
        f'<tr><td><b>{escape(group.value)}</b></td><td data-label="Jobs">{group.number}</td>'
        + "".join(f'<td data-label="{escape(name)}">{_spread(group.metrics.get(name))}</td>' for name in metrics)
        + "</tr>"
        for group in groups
    )
    return table((by, "Jobs", *(f"{name}: mean (min to max)" for name in metrics)), rows)


def _spread(values: tuple[float, float, float] | None) -> str:
    if values is None:
        return "–"
    mean, low, high = (f"{value:.4g}".replace("-", "−") for value in values)
    return f"{mean} ({low} to {high})"


def _grid(rows: Sequence[Run], fields: Sequence[str], metrics: Sequence[str], key: str) -> list[int]:
    """Draw the rows. Return the places of the selected ones."""
    numbers = {
        f"{name}{end}": st.column_config.NumberColumn(format="%.4g") for name in metrics for end in ("", " (best)")
    }
    frame = run_rows.frame(rows, fields, metrics)
    numbers |= {
        field: st.column_config.NumberColumn(format="%.4g")
        for field in fields
        if is_numeric_dtype(frame[field]) and not is_bool_dtype(frame[field])
    }
    event = st.dataframe(
        frame,
        key=key,
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        column_config={
            "Name": st.column_config.LinkColumn(pinned=True, display_text=r"#(.*)$", help="Opens in a new tab"),
            "Submitted": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm", timezone=st.context.timezone),
            **numbers,
        },
    )
    return list(event["selection"]["rows"])


def actions(jobs: Sequence[JobSummary]) -> None:
    """Draw what can be done with the selected jobs: compare, cancel, label."""
    if not jobs:
        st.caption("Select rows by their check boxes to compare, cancel or label jobs.")
        return
    me = service.me()
    mine = [job for job in jobs if me.may_change(job.project)]
    open_ones = [job for job in mine if not job.status.final]
    trained = [str(job.id) for job in jobs if job.kind == "train"][:MAX_JOBS]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.write(f"{len(jobs)} selected")
        if len(trained) > 1:
            st.page_link(
                "app_pages/compare.py", label=f"Compare ({len(trained)})", icon=":material/compare_arrows:",
                query_params={"jobs": ",".join(trained)},
            )  # fmt: skip
        if open_ones:
            with st.popover(f"Cancel ({len(open_ones)})", icon=":material/stop_circle:"):
                st.write(f"{EFFECT_ON_SEVERAL} {DEPENDENTS.format('these')}")
                if st.button("Cancel these jobs", type="primary", key="runs-cancel"):
                    _each(open_ones, lambda client, job: client.cancel(job.id))
        if mine:
            with st.popover(f"Label ({len(mine)})", icon=":material/label:"):
                _label(mine)


def _label(jobs: Sequence[JobSummary]) -> None:
    text = st.text_input("Label", key="runs-label", placeholder="stage:final", max_chars=600)
    label: tuple[str, str] | None = None
    if text:
        try:
            label = parse_label(text)
        except ValueError as error:
            st.text(str(error))
    if st.button("Set label", key="runs-set-label", disabled=label is None) and label:
        key, value = label
        _each(jobs, lambda client, job: client.edit(job.id, labels={key: value}))


def _each(jobs: Sequence[JobSummary], change: Callable[[Client, JobSummary], object]) -> None:
    """Change each job. Refusals are shown; the other jobs are changed."""
    refused = []
    for job in jobs:
        try:
            change(service.client(), job)
        except CalibrlError as error:
            refused.append(f"{job.name}: {error}")
    _forget()
    if not refused:
        st.rerun()
    for text in refused:
        st.text(text)
