"""The list of jobs: search, filters, small curves, pages."""

from typing import Any
from uuid import UUID

import numpy as np
import streamlit as st

from calibrl.schemas import JobSort, JobStatus, JobSummary, Series
from calibrl.schemas.jobs import parse_label
from dashboard import addresses, paging, states
from dashboard.charts.series import fence
from dashboard.forms.job_picker import MAX_JOBS
from dashboard.markup import (
    KINDS,
    as_markdown,
    chip,
    duration,
    elapsed,
    escape,
    job_link,
    moment,
    progress_bar,
    sparkline,
    status_chip,
    table,
)
from dashboard.palette import ENTROPY, NEUTRAL, POLICY, VALIDATION
from dashboard.reads import catalogue, service
from dashboard.views import alerts, run_table, saved_views

VIEWS = LIST, TABLE = ("List", "Table")
ALL = "all"  # no filter by status or project
PAGES = "before"  # key of the list's pages
PAGE = 30  # jobs shown at once: one call returns curves of at most 32 jobs
MAX_LABELS = 4  # shown per row
LATEST = "newest"
SORTS: dict[str, JobSort] = {
    LATEST: "-created",
    "oldest": "created",
    "name": "name",
    "status": "status",
    "last finished": "-finished",
}
TITLES = ("Job", "Status", "Type", "Progress", "Accuracy", "Entropy", "Submitted", "Duration")
PROJECT = "Project"  # an extra column, for a viewer with several projects
VALIDATION_ACCURACY, TRAIN_ACCURACY = "validation/accuracy", "reward/answer_accuracy"
ENTROPY_MEAN = "exploration/entropy"
METRICS = (VALIDATION_ACCURACY, TRAIN_ACCURACY, ENTROPY_MEAN)
Curves = dict[tuple[UUID, str], Series]
EMPTY = """kind: train
name: my-first-job
model: {builtin: tiny-vlm}
data: {builtin: digits}
algorithm: {type: sft}
prompts_per_step: 32
steps: 200"""


def _curves(jobs: list[JobSummary]) -> Curves:
    """Return the small curves of all jobs that have any.

    One call has one bucket width, in which a short job beside a long one would be a single point. So jobs with a
    similar number of steps share a call.
    """
    groups: dict[int, list[tuple[UUID, int, int]]] = {}
    for job in jobs:
        if job.kind == "train" and job.step:
            groups.setdefault(job.step.bit_length() // 3, []).append((job.id, job.attempt, job.step))
    curves: Curves = {}
    for group in groups.values():
        curves |= service.few_points(tuple(group), METRICS)
    return curves


def _latest(curve: Series | None) -> float | None:
    values = [] if curve is None else [value for value in curve.last if value is not None]
    return values[-1] if values else None


def _small(curve: Series | None, colour: str, label: str, top: float | None = None) -> str:
    if curve is None:
        return ""
    ends = fence(np.asarray(curve.mean, dtype=np.float64))
    return sparkline(curve.mean, colour, label, top=ends[1] if ends and top is None else top)


def _accuracy(job: JobSummary, curves: Curves) -> str:
    """The latest accuracy, validation if there is one, else train; the accuracies of an evaluation's models."""
    if job.kind == "evaluate":
        return catalogue.accuracies(job)[0]
    for metric, text, colour in ((VALIDATION_ACCURACY, "val", VALIDATION), (TRAIN_ACCURACY, "train", POLICY)):
        curve = curves.get((job.id, metric))
        if (value := _latest(curve)) is not None:
            return f"{_small(curve, colour, f'accuracy of {job.name}', 1.0)} {value:.0%} {chip(text, colour)}"
    return "–"


def _entropy(job: JobSummary, curves: Curves) -> str:
    curve = curves.get((job.id, ENTROPY_MEAN))
    value = _latest(curve)
    return "–" if value is None else f"{_small(curve, ENTROPY, f'entropy of {job.name}')} {value:.2f}"


def _progress(job: JobSummary) -> str:
    if job.steps_total is None:
        return "–"
    share = job.step / max(job.steps_total, 1)
    colour = POLICY if job.status.held else NEUTRAL
    return (
        f'<div style="display:flex;align-items:center;gap:.6rem"><div style="flex:1">'
        f"{progress_bar(share, colour, f'progress of {job.name}')}</div>"
        f'<span style="font-size:.8rem;white-space:nowrap">{job.step} / {job.steps_total}</span></div>'
    )


def _origin(job: JobSummary) -> str:
    """The beginning of the ID, and who submitted the job."""
    return f' <span style="font-size:.8rem;opacity:.75">{str(job.id)[:8]} · {escape(job.user)}</span>'


def _row(job: JobSummary, curves: Curves, with_project: bool) -> str:
    seconds = elapsed(job)
    lasted = "–" if seconds is None else duration(seconds)
    labels = "".join(f" {chip(f'{name}: {value}', NEUTRAL)}" for name, value in list(job.labels.items())[:MAX_LABELS])
    project = f'<td data-label="{PROJECT}">{escape(job.project)}</td>' if with_project else ""
    return (
        f"<tr><td>{job_link(job.id, job.name)}{_origin(job)}<div>{labels}</div></td>{project}"
        f"<td>{status_chip(job.status)} {alerts.count(job)}</td><td>{KINDS[job.kind]}</td><td>{_progress(job)}</td>"
        f'<td data-label="Accuracy">{_accuracy(job, curves)}</td>'
        f'<td data-label="Entropy">{_entropy(job, curves)}</td>'
        f'<td data-label="Submitted">{escape(moment(job.created_at))}</td><td data-label="Duration">{lasted}</td></tr>'
    )


def _show_empty(filtered: bool) -> None:
    if filtered:
        states.empty("No jobs match these filters", "Change the search or the filters.")
        with st.container(horizontal=True, horizontal_alignment="center"):
            st.button("Clear filters", icon=":material/filter_alt_off:", on_click=_clear_filters)
        return
    states.empty("No jobs yet", "Create a job with the form, or submit a spec like this one from a terminal:")
    with st.columns([1, 2, 1])[1]:
        if catalogue.own_projects():
            st.page_link("app_pages/new_job.py", label="New job", icon=":material/add:")
        st.code(EMPTY, language=None)
        st.code("calibrl submit my-first-job.yaml", language=None)


def _clear_filters() -> None:
    """Show all jobs again."""
    st.session_state.update(status=ALL, q="", label="")
    if "project" in st.session_state:
        st.session_state["project"] = ALL
    _first_page()


def _labels() -> tuple[dict[str, str], list[str]]:
    """The labels of the filter, separated by commas, and the parts of its text that are no labels."""
    labels: dict[str, str] = {}
    unread = []
    for text in filter(str.strip, st.session_state.get("label", "").split(",")):
        try:
            key, value = parse_label(text)
        except ValueError:
            unread.append(text.strip())
        else:
            labels[key] = value
    return labels, unread


def _query() -> dict[str, Any]:
    """The filters and the order of the list, as arguments of `Client.jobs`."""
    status = st.session_state.get("status", ALL)
    query: dict[str, Any] = {"sort": SORTS[st.session_state.get("sort", LATEST)]}
    if status != ALL:
        query["status"] = JobStatus(status)
    if (project := st.session_state.get("project", ALL)) != ALL:
        query["project"] = project
    if text := st.session_state.get("q", "").strip():
        query["q"] = text
    if labels := _labels()[0]:
        query["labels"] = labels
    return query


def _jobs() -> bool:
    """Draw the list. Return true if a job on it has not ended."""
    query = _query()
    page = service.jobs(**query, after=paging.after(PAGES), limit=PAGE)
    if page.data:
        curves = _curves(page.data)
        several = len(catalogue.projects()) > 1
        titles = (TITLES[0], PROJECT, *TITLES[1:]) if several else TITLES
        st.caption(f"{len(page.data)} jobs, more on the next page" if page.has_more else f"{len(page.data)} jobs")
        st.html(table(titles, (_row(job, curves, several) for job in page.data)))
    else:
        _show_empty(len(query) > 1)
    by_age = query["sort"] == SORTS[LATEST]
    paging.buttons(PAGES, page, back="Newer" if by_age else "Back", on="Older" if by_age else "More")
    _compare(page.data)
    return not all(job.status.final for job in page.data)


def _compare(shown: list[JobSummary]) -> None:
    """Draw a selection of jobs to compare: those shown, and those selected before."""
    offered: dict[UUID, str] = st.session_state.setdefault("offered", {})
    chosen: list[UUID] = st.session_state.get("compare", [])
    names = {job.id: job.name for job in shown if job.kind == "train"}
    offered = st.session_state["offered"] = {id: offered[id] for id in chosen if id in offered} | names
    if len(offered) < 2:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ids = st.multiselect(
            "Compare", list(offered), key="compare", placeholder="Select two or more jobs",
            max_selections=MAX_JOBS, format_func=lambda id: f"{offered[id]} ({str(id)[:8]})",
        )  # fmt: skip
        if len(ids) > 1:
            st.page_link(
                "app_pages/compare.py", label=f"Compare selected ({len(ids)})", icon=":material/compare_arrows:",
                query_params={"jobs": ",".join(map(str, ids))},
            )  # fmt: skip


def _first_page() -> None:
    paging.reset(PAGES)


def _filters() -> None:
    projects = catalogue.projects()
    addresses.check("status", [ALL, *(status.value for status in JobStatus)], ALL, str.capitalize)
    addresses.check("sort", SORTS, LATEST)
    addresses.check("project", [ALL, *projects], ALL)
    st.segmented_control(
        "Status",
        [ALL, *(status.value for status in JobStatus)],
        format_func=str.capitalize,
        default=ALL,
        required=True,
        key="status",
        bind="query-params",
        on_change=_first_page,
        label_visibility="collapsed",
    )
    search, labels, *project, sort = st.columns([2, 2, 1, 1] if len(projects) > 1 else [2, 2, 1])
    for column in project:
        column.selectbox(PROJECT, [ALL, *projects], key="project", bind="query-params", on_change=_first_page)
    search.text_input(
        "Search", key="q", bind="query-params", on_change=_first_page, placeholder="Search name, notes or ID prefix",
        max_chars=200,
    )  # fmt: skip
    labels.text_input(
        "Labels", key="label", bind="query-params", on_change=_first_page, placeholder="team=vision, stage=final",
        max_chars=500,
    )  # fmt: skip
    if unread := _labels()[1]:
        labels.warning(as_markdown(f"Not a label: {', '.join(unread)}. Write key=value, such as team=vision."))
    sort.selectbox("Sort by", list(SORTS), key="sort", bind="query-params", on_change=_first_page)


def page() -> None:
    """Draw the page."""
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Jobs", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        saved_views.draw()
        if catalogue.own_projects() and st.button("New job", icon=":material/add:"):
            st.switch_page("app_pages/new_job.py")
    _filters()
    addresses.check("list-view", VIEWS, LIST)
    view = st.segmented_control(
        "View", VIEWS, default=LIST, required=True, key="list-view", bind="query-params", label_visibility="collapsed"
    )
    if view == TABLE:
        run_table.draw(_query())
        return
    active = st.session_state.get("active", True)
    st.fragment(_live, run_every=service.LIST_TICK if active else service.IDLE_TICK)(active)


def _live(shown_as_active: bool) -> None:
    """Draw the list at every tick. The page runs again if the pace changes: all jobs have ended, or one is active."""
    active = shown_as_active
    with states.explained():
        active = _jobs()
    if active != shown_as_active:
        st.session_state["active"] = active
        st.rerun()


with states.explained():
    page()
