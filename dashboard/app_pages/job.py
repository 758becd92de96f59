"""Page of a job: /job?id=... The URL also names the panel and its state, so that it can be shared."""

import re
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobStatus, Reason
from dashboard import addresses, states
from dashboard.forms import edit_dialog, fork_dialog, form_start, what_if_dialog
from dashboard.forms.changes import change
from dashboard.markup import as_markdown
from dashboard.panels.common import has_rollouts
from dashboard.panels.installed import installed_panels
from dashboard.panels.panel import Panel, panels_of
from dashboard.reads import service
from dashboard.views import alerts, chart_look, job_actions, job_head, notifications
from dashboard.views.new_job_page import submit_and_open

LAST = 1000  # place of panels of other packages
EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .*$", re.MULTILINE)


def _panels(job: Job) -> dict[str, Panel]:
    """The panels of a job, by title: the built-in ones, and those of other packages for a training."""
    built_in = panels_of(job)
    others = installed_panels() if job.kind == "train" else {}
    return built_in | {title: Panel(title, draw, LAST) for title, draw in others.items() if title not in built_in}


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


def _actions(job: Job) -> None:
    """Draw the buttons that the job's status and the viewer's role allow."""
    notifications.watch(job)
    if not service.me().may_change(job.project):
        return
    job_actions.draw_pause(job)
    if job.status in JobStatus.broken_ones() and st.button(
        "Retry", icon=":material/replay:", key="retry", help="Continues from the last checkpoint, if there is one."
    ):
        change(lambda: service.client().retry(job.id))
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
    job_actions.draw_cancel(job)


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
    head, action = st.columns([2, 1], vertical_alignment="top")
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
    panel = panels.get(chosen or "", next(iter(panels.values())))
    if panel.charted and job.attempt:
        chart_look.choose()
    panel.draw(job)


with states.explained():
    page()
