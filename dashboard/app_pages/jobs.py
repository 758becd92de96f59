"""All jobs, newest first."""

from uuid import UUID

import streamlit as st

from dashboard import catalogue, data, states
from dashboard.markup import chip, duration, elapsed, escape, job_link, moment, progress_bar, status_chip, table
from dashboard.palette import HELD_OUT, NEUTRAL, POLICY
from jobs.schemas import JobStatus, JobSummary

ALL = "all"  # no status: every job
PAGE = 50  # jobs shown at once
TITLES = ("Job", "Status", "Kind", "Progress", "Accuracy", "Submitted", "Ran for")
HELD_OUT_ACCURACY, TRAINING_ACCURACY = "validation/accuracy", "reward/answer_accuracy"
EMPTY = """kind: train
name: my-first-job
model: {builtin: tiny-vlm}
data: {builtin: digits}
algorithm: {type: sft}
prompts_per_step: 32
steps: 200"""


def _accuracy(job: JobSummary) -> str:
    """The newest accuracy, held out before training; an evaluation's from its first to its last model."""
    if job.kind == "evaluate":
        results = data.results(job.id, job.attempt) if job.status is JobStatus.SUCCEEDED else []
        first_split = [result for result in results if result["split"] == results[0]["split"]]
        values = [result["metrics"].get("accuracy") for result in first_split]
        return " → ".join(f"{value:.0%}" for value in values if isinstance(value, int | float)) or "–"
    if job.step == 0:
        return "–"
    found = data.last_values(job.id, job.attempt, job.step, (HELD_OUT_ACCURACY, TRAINING_ACCURACY))
    if HELD_OUT_ACCURACY in found:
        return f"{found[HELD_OUT_ACCURACY]:.0%} {chip('held out', HELD_OUT)}"
    if TRAINING_ACCURACY in found:
        return f"{found[TRAINING_ACCURACY]:.0%} {chip('in training', POLICY)}"
    return "–"


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


def _row(job: JobSummary) -> str:
    seconds = elapsed(job)
    ran = "–" if seconds is None else duration(seconds)
    return (
        f"<tr><td>{job_link(job.id, job.name)}</td>"
        f"<td>{status_chip(job.status)}</td><td>{escape(job.kind)}</td><td>{_progress(job)}</td>"
        f'<td data-label="Accuracy">{_accuracy(job)}</td>'
        f'<td data-label="Submitted">{escape(moment(job.created_at))}</td><td data-label="Ran">{ran}</td></tr>'
    )


def _nothing(status: JobStatus | None) -> None:
    if status is not None:
        states.empty(f"No {status.value} jobs", "Choose another status to see the others.")
        return
    states.empty("No jobs yet", "Write a spec like this one to a file, and submit it from a terminal:")
    with st.columns([1, 2, 1])[1]:
        st.code(EMPTY, language="yaml")
        st.code("calibrl submit my-first-job.yaml", language="bash")


def _jobs() -> bool:
    """Draw the list; whether a job on it is yet to end."""
    chosen = st.session_state.get("status", ALL)
    status = None if chosen == ALL else JobStatus(chosen)
    seen: list[UUID] = st.session_state.setdefault("before", [])
    shown = data.jobs(status, None, seen[-1] if seen else None, PAGE)
    if shown.data:
        st.html(table(TITLES, map(_row, shown.data)))
    else:
        _nothing(status)
    with st.container(horizontal=True):
        if seen and st.button("Newer", icon=":material/arrow_back:"):
            seen.pop()
            st.rerun(scope="fragment")
        if shown.has_more and st.button("Older", icon=":material/arrow_forward:"):
            seen.append(shown.data[-1].id)
            st.rerun(scope="fragment")
    return not all(job.status.final for job in shown.data)


def _first_page() -> None:
    st.session_state["before"] = []


def page() -> None:
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Jobs", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        if catalogue.own_projects() and st.button("New job", icon=":material/add:"):
            st.switch_page("app_pages/new_job.py")
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
