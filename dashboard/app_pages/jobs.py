"""All jobs: searched, sorted, with small curves, a page at a time."""

from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.schemas import JobSort, JobStatus, JobSummary, Series
from dashboard import paging, states
from dashboard.markup import (
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
from dashboard.palette import ENTROPY, HELD_OUT, NEUTRAL, POLICY
from dashboard.reads import catalogue, data

ALL = "all"  # of a status or a project: every job
BEFORE = "before"  # the list's pages
PAGE = 30  # jobs shown at once: curves come of at most 32 jobs a call
MOST_LABELS = 4  # shown of a job in its row
MOST_COMPARED = 8
NEWEST = "newest"
SORTS: dict[str, JobSort] = {
    NEWEST: "-created",
    "oldest": "created",
    "name": "name",
    "status": "status",
    "ended last": "-finished",
}
TITLES = ("Job", "Status", "Kind", "Progress", "Accuracy", "Entropy", "Submitted", "Ran for")
PROJECT = "Project"  # one more column, for a viewer of several
HELD_OUT_ACCURACY, TRAINING_ACCURACY = "validation/accuracy", "reward/answer_accuracy"
ENTROPY_MEAN = "exploration/entropy"
NAMES = (HELD_OUT_ACCURACY, TRAINING_ACCURACY, ENTROPY_MEAN)
Curves = dict[tuple[UUID, str], Series]
EMPTY = """kind: train
name: my-first-job
model: {builtin: tiny-vlm}
data: {builtin: digits}
algorithm: {type: sft}
prompts_per_step: 32
steps: 200"""


def _curves(jobs: list[JobSummary]) -> Curves:
    """Small curves of all jobs that have some. Jobs of about as many steps are asked for together: buckets are as wide
    for all, and next to a long run a short one would be a point."""
    alike: dict[int, list[tuple[UUID, int, int]]] = {}
    for job in jobs:
        if job.kind == "train" and job.step:
            alike.setdefault(job.step.bit_length() // 3, []).append((job.id, job.attempt, job.step))
    found: Curves = {}
    for some in alike.values():
        found |= data.few_points(tuple(some), NAMES)
    return found


def _newest(curve: Series | None) -> float | None:
    values = [] if curve is None else [value for value in curve.last if value is not None]
    return values[-1] if values else None


def _small(curve: Series | None, colour: str, label: str, top: float | None = None) -> str:
    return "" if curve is None else sparkline(curve.mean, colour, label, top=top)


def _accuracy(job: JobSummary, curves: Curves) -> str:
    """The newest accuracy, held out before training; an evaluation's from its first to its last model."""
    if job.kind == "evaluate":
        return catalogue.reached(job)[0]
    for name, said, colour in ((HELD_OUT_ACCURACY, "held out", HELD_OUT), (TRAINING_ACCURACY, "in training", POLICY)):
        curve = curves.get((job.id, name))
        if (value := _newest(curve)) is not None:
            return f"{_small(curve, colour, f'accuracy of {job.name}', 1.0)} {value:.0%} {chip(said, colour)}"
    return "–"


def _entropy(job: JobSummary, curves: Curves) -> str:
    curve = curves.get((job.id, ENTROPY_MEAN))
    value = _newest(curve)
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


def _row(job: JobSummary, curves: Curves, with_project: bool) -> str:
    seconds = elapsed(job)
    ran = "–" if seconds is None else duration(seconds)
    labels = "".join(f" {chip(f'{name}: {value}', NEUTRAL)}" for name, value in list(job.labels.items())[:MOST_LABELS])
    project = f'<td data-label="{PROJECT}">{escape(job.project)}</td>' if with_project else ""
    return (
        f"<tr><td>{job_link(job.id, job.name)}<div>{labels}</div></td>{project}"
        f"<td>{status_chip(job.status)}</td><td>{escape(job.kind)}</td><td>{_progress(job)}</td>"
        f'<td data-label="Accuracy">{_accuracy(job, curves)}</td>'
        f'<td data-label="Entropy">{_entropy(job, curves)}</td>'
        f'<td data-label="Submitted">{escape(moment(job.created_at))}</td><td data-label="Ran">{ran}</td></tr>'
    )


def _nothing(filtered: bool) -> None:
    if filtered:
        states.empty("No such jobs", "Choose another status, or take back some of the search, to see others.")
        return
    states.empty("No jobs yet", "Fill in a form, or write a spec like this one and submit it from a terminal:")
    with st.columns([1, 2, 1])[1]:
        if catalogue.own_projects():
            st.page_link("app_pages/new_job.py", label="New job", icon=":material/add:")
        st.code(EMPTY, language=None)
        st.code("calibrl submit my-first-job.yaml", language=None)


def _labels() -> dict[str, str]:
    """Labels as they were typed, key:value with commas between."""
    pairs = (text.partition(":") for text in st.session_state.get("label", "").split(","))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip()}


def _wanted() -> dict[str, Any]:
    """What the list is to show, as the API is asked for it."""
    status = st.session_state.get("status", ALL)
    wanted: dict[str, Any] = {"sort": SORTS[st.session_state.get("sort", NEWEST)]}
    if status != ALL:
        wanted["status"] = JobStatus(status)
    if (project := st.session_state.get("project", ALL)) != ALL:
        wanted["project"] = project
    if text := st.session_state.get("q", "").strip():
        wanted["q"] = text
    if labels := _labels():
        wanted["labels"] = labels
    return wanted


def _jobs() -> bool:
    """Draw the list; whether a job on it is yet to end."""
    wanted = _wanted()
    shown = data.jobs(**wanted, after=paging.after(BEFORE), limit=PAGE)
    if shown.data:
        curves = _curves(shown.data)
        several = len(catalogue.projects()) > 1
        titles = (TITLES[0], PROJECT, *TITLES[1:]) if several else TITLES
        st.html(table(titles, (_row(job, curves, several) for job in shown.data)))
    else:
        _nothing(len(wanted) > 1)
    by_age = wanted["sort"] == SORTS[NEWEST]
    paging.buttons(BEFORE, shown, back="Newer" if by_age else "Back", on="Older" if by_age else "More")
    _compare(shown.data)
    return not all(job.status.final for job in shown.data)


def _compare(shown: list[JobSummary]) -> None:
    """Choose several of the jobs on show, and of those chosen before, to see over one another."""
    offered: dict[UUID, str] = st.session_state.setdefault("offered", {})
    chosen: list[UUID] = st.session_state.get("compare", [])
    names = {job.id: job.name for job in shown if job.kind == "train"}
    offered = st.session_state["offered"] = {id: offered[id] for id in chosen if id in offered} | names
    if len(offered) < 2:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ids = st.multiselect(
            "Compare", list(offered), key="compare", placeholder="Choose two jobs or more",
            max_selections=MOST_COMPARED, format_func=lambda id: f"{offered[id]} ({str(id)[:8]})",
        )  # fmt: skip
        if len(ids) > 1:
            st.page_link(
                "app_pages/compare.py", label="Compare them", icon=":material/compare_arrows:",
                query_params={"jobs": ",".join(map(str, ids))},
            )  # fmt: skip


def _first_page() -> None:
    paging.begin(BEFORE)


def _filters() -> None:
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
    projects = catalogue.projects()
    search, labels, *project, sort = st.columns([2, 2, 1, 1] if len(projects) > 1 else [2, 2, 1])
    for column in project:
        column.selectbox(PROJECT, [ALL, *projects], key="project", bind="query-params", on_change=_first_page)
    search.text_input(
        "Search", key="q", bind="query-params", on_change=_first_page, placeholder="Name, notes, or how the id begins",
        max_chars=200,
    )  # fmt: skip
    labels.text_input(
        "Labels", key="label", bind="query-params", on_change=_first_page, placeholder="team:vision, stage:final",
        max_chars=500,
    )  # fmt: skip
    sort.selectbox("Sort by", list(SORTS), key="sort", bind="query-params", on_change=_first_page)


def page() -> None:
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Jobs", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        if catalogue.own_projects() and st.button("New job", icon=":material/add:"):
            st.switch_page("app_pages/new_job.py")
    _filters()
    active = st.session_state.get("active", True)
    st.fragment(_live, run_every=data.LIST_TICK if active else data.IDLE_TICK)(active)


def _live(shown_as_active: bool) -> None:
    """The list at every tick. Once all jobs have ended, or one begins, the page is run anew for another pace."""
    active = shown_as_active
    with states.explained():
        active = _jobs()
    if active != shown_as_active:
        st.session_state["active"] = active
        st.rerun()


with states.explained():
    page()
