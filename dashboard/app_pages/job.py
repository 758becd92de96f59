"""Page of a job: /job?id=... The URL also names the panel and its state, so that it can be shared."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobStatus, Reason
from dashboard import states
from dashboard.forms import fork_dialog, what_if_dialog
from dashboard.markup import KINDS, as_markdown, duration, elapsed, escape, job_link, moment, progress_bar, status_chip
from dashboard.palette import NEUTRAL, POLICY
from dashboard.panels import (
    audit,
    bisection,
    evaluation,
    expert,
    exploration,
    files,
    health,
    map,
    metrics,
    overview,
    prompts,
    records,
    rollouts,
    system,
    what_if,
)
from dashboard.panels.common import has_rollouts
from dashboard.panels.installed import installed_panels
from dashboard.reads import live, service
from dashboard.views import alerts
from dashboard.views.new_job_page import submit_and_open

Panel = Callable[[Job], None]
EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .*$", re.MULTILINE)
PAUSABLE = (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING)
COUNTED = {"train": "steps", "what_if": "updates", "bisect": "probes"}  # progress of other kinds is in batches
RECORDS: dict[str, Panel] = {
    "Log": records.log,
    "Files": files.draw,
    "Events": records.events,
    "Spec": records.spec,
}
ROLLOUTS: dict[str, Panel] = {
    "Exploration": exploration.draw,
    "Expert mismatch": expert.draw,
    "Map": map.draw,
    "Rollouts": rollouts.draw,
    "Prompts": prompts.draw,
}


def _panels(job: Job) -> dict[str, Panel]:
    """The panels of a job, by title; those of rollouts only if the algorithm samples any."""
    if job.kind == "evaluate":
        return {"Results": evaluation.draw, **RECORDS}
    if job.kind == "audit":
        return {"Results": audit.draw, **RECORDS}
    if job.kind == "what_if":
        return {"Results": what_if.draw, **RECORDS}
    if job.kind == "bisect":
        return {"Results": bisection.draw, **RECORDS}
    with_rollouts = ROLLOUTS if has_rollouts(job) else {}
    rest = {"Metrics": metrics.draw, "Health": health.draw, "System": system.draw, **RECORDS}
    built_in = {"Overview": overview.draw, **with_rollouts, **rest}
    return built_in | {title: draw for title, draw in installed_panels().items() if title not in built_in}


def _requested() -> UUID | None:
    try:
        return UUID(st.query_params.get("id", ""))
    except ValueError:
        return None


def _facts(job: Job) -> str:
    facts = [
        KINDS[job.kind],
        f"project {job.project}",
        f"submitted {moment(job.created_at)}",
    ]
    if (seconds := elapsed(job)) is not None:
        facts.append(f"{'duration' if job.finished_at else 'running for'} {duration(seconds)}")
    if job.attempt > 1:
        facts.append(f"attempt {job.attempt}")
    if len(job.workers) > 1:
        facts.append(f"on {', '.join(job.workers)}")
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
    history = live.history(job.id, job.attempt, (live.STEP_SECONDS,))
    history.refresh()
    pace = history.seconds_per_step(job.attempt_started_at)
    return "" if pace is None else f", about {duration(pace * (job.steps_total - job.step))} left"


def _progress(job: Job) -> str:
    if job.steps_total is None:
        return ""
    text = f"{job.step} of {job.steps_total} {COUNTED.get(job.kind, 'batches')}{_time_left(job)}"
    colour = POLICY if job.status.held else NEUTRAL
    bar = progress_bar(job.step / max(job.steps_total, 1), colour, "progress")
    return f'<div style="margin-top:0.6rem">{bar}<div style="font-size:0.85rem;margin-top:0.25rem">{text}</div></div>'


def _dependencies(job: Job) -> str:
    if job.attempt or job.status.final or not job.depends_on:  # later the overview shows the lineage
        return ""
    links = ", ".join(_dependency(id) for id in job.depends_on)
    return f'<div style="font-size:0.9rem;margin-top:0.3rem">Depends on {links}</div>'


def _dependency(id: UUID) -> str:
    try:
        return job_link(id, service.job(str(id)).name)
    except CalibrlError:  # deleted, or in a project without access
        return f"{escape(str(id)[:8])} (no access)"


def _queue_place(job: Job) -> str:
    """The queue position of a queued job, the reason why it waits, and its estimated start."""
    entry = service.queue(job.project).get(job.id) if job.status == JobStatus.QUEUED else None
    if entry is None:
        return ""
    facts = [f"Queue position {entry.position}", entry.explanation]
    if entry.reason and entry.estimated_start:
        seconds = (entry.estimated_start - datetime.now(UTC)).total_seconds()
        facts.append(f"estimated start in {duration(seconds)}")
    return f'<div style="font-size:0.9rem;margin-top:0.3rem">{escape(" · ".join(facts))}</div>'


def _header(shown: Job) -> None:
    """Draw the live head of the page. A new status reruns the whole page, which starts or stops its timers."""
    job = shown
    with states.explained("trouble-head"), states.tolerated():
        job = states.reread(shown)
        place = [*_panels(job), "Health"].index("Health") + 1
        st.html(_title(job) + _dependencies(job) + _queue_place(job) + _progress(job) + alerts.notice(job, place))
    if (job.status, job.attempt) != (shown.status, shown.attempt):
        st.rerun()


def _reason(job: Job) -> None:
    """Draw why a job failed, was paused or was cancelled. The message can hold the end of a log: plain text."""
    reason = job.reason.value.replace("_", " ") if job.reason else "no reason given"
    if job.status == JobStatus.FAILED:
        st.error(f"Failed: {as_markdown(_cause(job) or reason)}", icon=":material/error:")
        if job.message:
            st.code(job.message, language=None, wrap_lines=True)
    elif job.status == JobStatus.PAUSED and job.reason == Reason.HEALTH:
        st.warning(as_markdown(_paused_by(job)), icon=":material/pause:")
    elif job.message and job.status != JobStatus.SUCCEEDED:
        st.text(job.message if job.reason is None else f"{job.message} ({reason})")


def _cause(job: Job) -> str | None:
    """The last line of the job's message that names an exception, such as `RuntimeError: out of range`."""
    lines = EXCEPTION.findall(job.message or "")
    return lines[-1] if lines else None


def _paused_by(job: Job) -> str:
    """The health rule that paused a job; its message begins with the rule's name."""
    rule = (job.message or "").partition(" ")[0]
    title = alerts.title_of(rule or "unknown")
    return f"Paused by health rule {title}; checkpoint saved at step {job.step}"


def _request(job: Job, change: Callable[[UUID], Job]) -> None:
    """Request a change of a job and run the page again, or show the error."""
    try:
        change(job.id)
    except CalibrlError as error:
        st.text(str(error))
        return
    service.clear_job_caches()
    st.rerun()


def _actions(job: Job) -> None:
    """Draw the buttons that the job's status and the viewer's role allow."""
    if not service.me().may_change(job.project):
        return
    client = service.client()
    if job.status in PAUSABLE and st.button(
        "Pause", icon=":material/pause:", key="pause", help="A running job saves a checkpoint and frees its slot."
    ):
        _request(job, client.pause)
    if job.status == JobStatus.PAUSED and st.button("Resume", icon=":material/play_arrow:", key="resume"):
        _request(job, client.resume)
    if job.status in JobStatus.broken_ones() and st.button(
        "Retry", icon=":material/replay:", key="retry", help="Continues from the last checkpoint, if there is one."
    ):
        _request(job, client.retry)
    if st.button(
        "Fork", icon=":material/fork_right:", key="fork", help="Start a new job from a checkpoint, with changes."
    ):
        fork_dialog.dialog(job)
    if has_rollouts(job) and st.button(
        "What if",
        icon=":material/alt_route:",
        key="what-if",
        help="Compare an update of this job with those of other settings, without training.",
    ):
        what_if_dialog.dialog(job)
    if job.status == JobStatus.SUCCEEDED and st.button(
        "Reproduce",
        icon=":material/repeat:",
        key="reproduce",
        help="Run it again and compare: panel Spec of the new job.",
    ):
        submit_and_open(lambda: client.reproduce(job.id))
    if not job.status.final and job.status != JobStatus.CANCELLING:
        with st.popover("Cancel", icon=":material/stop_circle:"):
            st.write("The trainer saves a checkpoint and stops. Jobs that depend on this job will fail.")
            if st.button("Cancel job", type="primary", key="cancel"):
                _request(job, client.cancel)


def page() -> None:
    """Draw the page."""
    st.page_link("app_pages/jobs.py", label="All jobs", icon=":material/arrow_back:")
    job_id = _requested()
    if job_id is None:
        states.empty("No job selected", "The URL has no valid job ID. Choose a job from the list.")
        return
    try:
        job = service.job(str(job_id))
    except CalibrlError as error:
        if error.status != 404:
            raise
        states.empty("Job not found", "The URL may be wrong, or you have no access to its project.")
        return
    head, action = st.columns([3, 1], vertical_alignment="top")
    with head:
        st.fragment(_header, run_every=None if job.status.final else service.TICK)(job)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(job)
    _reason(job)
    panels = _panels(job)
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
