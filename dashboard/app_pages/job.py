"""A job, at an address that can be shared: /job?id=..., with the panel and what it shows in the address too."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.forms import fork_dialog
from dashboard.markup import duration, elapsed, escape, job_link, moment, progress_bar, status_chip
from dashboard.palette import NEUTRAL, POLICY
from dashboard.panels import evaluation, expert, exploration, files, health, map, overview, records, rollouts, system
from dashboard.panels.installed import installed_panels
from dashboard.reads import data, live

Panel = Callable[[Job], None]
PAUSABLE = (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING)
RECORDS: dict[str, Panel] = {
    "Log": records.log,
    "Files": files.draw,
    "Events": records.events,
    "Spec": records.spec,
}
TRAIN: dict[str, Panel] = {
    "Overview": overview.draw,
    "Exploration": exploration.draw,
    "Expert mismatch": expert.draw,
    "Map": map.draw,
    "Rollouts": rollouts.draw,
    "Health": health.draw,
    "System": system.draw,
    **RECORDS,
}
EVALUATE: dict[str, Panel] = {"Results": evaluation.draw, **RECORDS}


def _requested() -> UUID | None:
    try:
        return UUID(st.query_params.get("id", ""))
    except ValueError:
        return None


def _facts(job: Job) -> str:
    facts = [
        "Training" if job.kind == "train" else "Evaluation",
        f"project {job.project}",
        f"submitted {moment(job.created_at)}",
    ]
    if (seconds := elapsed(job)) is not None:
        facts.append(f"{'ran' if job.finished_at else 'running for'} {duration(seconds)}")
    if job.attempt > 1:
        facts.append(f"attempt {job.attempt}")
    facts += [f"{name}: {value}" for name, value in job.labels.items()]
    return " · ".join(escape(fact) for fact in facts)


def _title(job: Job) -> str:
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0.4rem 0.9rem">'
        '<h1 style="font-size:1.9rem;font-weight:700;margin:0;padding:0;overflow-wrap:anywhere">'
        f"{escape(job.name)}</h1>"
        f"{status_chip(job.status)}</div>"
        f'<div style="opacity:0.8;font-size:0.9rem;margin-top:0.35rem">{_facts(job)}</div>'
    )


def _time_left(job: Job) -> str:
    if job.status != JobStatus.RUNNING or job.steps_total is None or job.kind != "train":
        return ""
    history = live.history(job.id, job.attempt, ("perf/step_seconds",))
    history.refresh()
    pace = history.seconds_a_step("perf/step_seconds")
    return "" if pace is None else f", about {duration(pace * (job.steps_total - job.step))} left"


def _progress(job: Job) -> str:
    if job.steps_total is None:
        return ""
    words = f"{job.step} of {job.steps_total} {'steps' if job.kind == 'train' else 'batches'}{_time_left(job)}"
    colour = POLICY if job.status.held else NEUTRAL
    bar = progress_bar(job.step / max(job.steps_total, 1), colour, "progress")
    return f'<div style="margin-top:0.6rem">{bar}<div style="font-size:0.85rem;margin-top:0.25rem">{words}</div></div>'


def _dependencies(job: Job) -> str:
    if job.attempt or job.status.final or not job.depends_on:  # then the overview's lineage tells where it comes from
        return ""
    links = ", ".join(_dependency(id) for id in job.depends_on)
    return f'<div style="font-size:0.9rem;margin-top:0.3rem">Waits for {links}</div>'


def _dependency(id: UUID) -> str:
    try:
        return job_link(id, data.job(str(id)).name)
    except CalibrlError:  # deleted, or of a project that is not the viewer's
        return f"{escape(str(id)[:8])} (out of sight)"


def _in_line(job: Job) -> str:
    """Why a queued job does not start now, and when it may."""
    entry = data.queue(job.project).get(job.id) if job.status == JobStatus.QUEUED else None
    if entry is None:
        return ""
    words = f"Position {entry.position} in the queue: {entry.explanation}."
    if entry.reason and entry.estimated_start:
        seconds = (entry.estimated_start - datetime.now(UTC)).total_seconds()
        words += f" It may start in about {duration(seconds)}."
    return f'<div style="font-size:0.9rem;margin-top:0.3rem">{escape(words)}</div>'


def _header(shown: Job) -> None:
    """The live head of the page. A change of status redraws the whole page, which starts or stops its timers."""
    job = shown
    with states.explained("trouble-head"), states.tolerated():
        job = states.reread(shown)
        st.html(_title(job) + _dependencies(job) + _in_line(job) + _progress(job))
    if (job.status, job.attempt) != (shown.status, shown.attempt):
        st.rerun()


def _why(job: Job) -> None:
    """Why a job stands where it does, where that is not plain; a crash with the end of its log, as plain text."""
    reason = job.reason.value.replace("_", " ") if job.reason else "no reason given"
    if job.status == JobStatus.FAILED:
        st.error(f"The job failed: {reason}.", icon=":material/error:")
        if job.message:
            st.code(job.message, language=None, wrap_lines=True)
    elif job.message and job.status != JobStatus.SUCCEEDED:
        st.text(job.message if job.reason is None else f"{job.message} ({reason})")


def _ask(job: Job, ask: Callable[[UUID], Job]) -> None:
    """Ask the service for something, and show the job as it then stands; or why it would not."""
    try:
        ask(job.id)
    except CalibrlError as error:
        st.text(str(error))
        return
    data.changed()
    st.rerun()


def _actions(job: Job) -> None:
    """What can be asked of a job as it stands, by those who may."""
    if not data.me().may_change(job.project):
        return
    client = data.client()
    if job.status in PAUSABLE and st.button(
        "Pause", icon=":material/pause:", key="pause", help="A running job saves a checkpoint and frees its slot."
    ):
        _ask(job, client.pause)
    if job.status == JobStatus.PAUSED and st.button("Resume", icon=":material/play_arrow:", key="resume"):
        _ask(job, client.resume)
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and st.button(
        "Retry", icon=":material/replay:", key="retry", help="It goes on from its last checkpoint, if it left one."
    ):
        _ask(job, client.retry)
    if st.button("Fork", icon=":material/fork_right:", key="fork", help="A new job from a checkpoint, with changes."):
        fork_dialog.dialog(job)
    if not job.status.final and job.status != JobStatus.CANCELLING:
        with st.popover("Cancel job", icon=":material/stop_circle:"):
            st.write("The trainer saves a checkpoint and stops. Jobs that wait for this one will fail.")
            if st.button("Yes, cancel it", type="primary", key="cancel"):
                _ask(job, client.cancel)


def page() -> None:
    st.page_link("app_pages/jobs.py", label="All jobs", icon=":material/arrow_back:")
    job_id = _requested()
    if job_id is None:
        states.empty("No such job", "The address names no job. Choose one from the list of jobs.")
        return
    try:
        job = data.job(str(job_id))
    except CalibrlError as error:
        if error.status != 404:
            raise
        states.empty("There is no such job", "The address may be mistyped, or it belongs to a project not yours.")
        return
    head, action = st.columns([3, 1], vertical_alignment="top")
    with head:
        st.fragment(_header, run_every=None if job.status.final else data.TICK)(job)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(job)
    _why(job)
    panels = {**TRAIN, **installed_panels(), **TRAIN} if job.kind == "train" else EVALUATE
    chosen = st.segmented_control(
        "Panel",
        list(panels),
        default=next(iter(panels)),
        required=True,
        key="panel",
        bind="query-params",
        label_visibility="collapsed",
    )
    panels.get(chosen or "", next(iter(panels.values())))(job)


with states.explained():
    page()
