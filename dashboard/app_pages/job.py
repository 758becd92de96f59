"""Page of a job: /job?id=... The URL also names the panel and its state, so that it can be shared."""

import re
from collections.abc import Callable
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobStatus, Reason
from dashboard import addresses, states
from dashboard.forms import edit_dialog, fork_dialog, form_start, what_if_dialog
from dashboard.markup import as_markdown
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
from dashboard.reads import service
from dashboard.views import alerts, chart_look, job_head, notifications
from dashboard.views.new_job_page import submit_and_open

Panel = Callable[[Job], None]
EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .*$", re.MULTILINE)
PAUSABLE = (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING)
CHARTED = ("Overview", "Exploration", "Expert mismatch", "Metrics", "System")
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


def _reason(job: Job) -> None:
    """Draw why a job failed, was paused or was cancelled. The message can hold the end of a log: plain text."""
    reason = job.reason.value.replace("_", " ") if job.reason else "no reason given"
    if job.status == JobStatus.FAILED:
        st.error(f"Failed: {as_markdown(_cause(job) or reason)}", icon=":material/error:")
        if job.message:
            with st.expander("Last log lines", icon=":material/notes:"):
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


def _effect_of_cancel(job: Job) -> str:
    if job.status.held:
        return "The trainer saves a checkpoint and stops."
    if job.attempt == 0:
        return "The job has not started. It leaves the queue."
    return f"The job does not run now. Its files up to step {job.step} stay."


def _actions(job: Job) -> None:
    """Draw the buttons that the job's status and the viewer's role allow."""
    notifications.watch(job)
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
    if (
        job.kind == "train"
        and job.attempt
        and st.button(
            "Evaluate", icon=":material/grading:", key="evaluate", help="Fill in an evaluation of its best checkpoint."
        )
    ):
        st.switch_page("app_pages/new_job.py", query_params={"evaluate": str(job.id)})
    if st.button(
        "Fork", icon=":material/fork_right:", key="fork", help="Start a new job from a checkpoint, with changes."
    ):
        fork_dialog.dialog(job)
    with st.popover("More", icon=":material/more_horiz:"):
        _more(job)
    if not job.status.final and job.status != JobStatus.CANCELLING:
        with st.popover("Cancel", icon=":material/stop_circle:"):
            st.write(f"{_effect_of_cancel(job)} Jobs that depend on this job will fail.")
            if st.button("Cancel job", type="primary", key="cancel"):
                _request(job, client.cancel)


def _more(job: Job) -> None:
    """Draw the buttons that are needed less often."""
    client = service.client()
    if job.kind in form_start.KINDS and st.button(
        "Clone", icon=":material/content_copy:", key="clone", help="Fill in the form of a new job with this config."
    ):
        st.switch_page("app_pages/new_job.py", query_params={"clone": str(job.id)})
    if st.button("Edit", icon=":material/edit:", key="edit", help="Name, labels and notes"):
        edit_dialog.dialog(job)
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


def page() -> None:
    """Draw the page."""
    with st.container(key="all-jobs"):  # `link_clicks.js` adds the filters of the list
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
        health_place = [*_panels(job), "Health"].index("Health") + 1
        st.fragment(job_head.draw, run_every=None if job.status.final else service.TICK)(job, health_place)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(job)
    _reason(job)
    if job.notes:
        with st.expander("Notes", icon=":material/sticky_note_2:"):
            st.text(job.notes)
    panels = _panels(job)
    addresses.check("panel", panels, next(iter(panels)))
    chosen = st.segmented_control(
        "Panel",
        list(panels),
        default=next(iter(panels)),
        required=True,
        key="panel",
        bind="query-params",
        label_visibility="collapsed",
    )
    if job.kind == "train" and job.attempt and chosen in CHARTED:
        chart_look.choose()
    panels.get(chosen or "", next(iter(panels.values())))(job)


with states.explained():
    page()
