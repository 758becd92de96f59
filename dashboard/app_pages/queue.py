"""The queue: waiting jobs with their reasons, running jobs, and machines with their GPUs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import JobStatus, JobSummary, Me, Priority, QueueEntry, Worker, WorkerStatus
from dashboard import states
from dashboard.markup import chip, duration, elapsed, escape, gpu_table, job_link, progress_bar, status_chip, table
from dashboard.palette import CORRECT, NEUTRAL, POLICY, RARENESS, WRONG
from dashboard.reads import catalogue, service
from dashboard.views import hours

PERIODS = (7, 30, 90, 366)  # days
MAX_SHOWN = 200  # waiting jobs, and running jobs
WAITING_TITLES = ("#", "Job", "Project", "User", "Priority", "Resources", "Reason", "Est. start")
RUNNING_TITLES = ("Job", "Status", "Project", "User", "Resources", "Progress", "Running for")
FAIR_SHARE = (
    "Order: priority first. Within a priority, fair share: the project with the lowest recent use, relative to its "
    "weight. Within a project, the oldest job. A job can start earlier if it does not delay a job before it."
)
MACHINE_COLOURS = {
    WorkerStatus.ONLINE: CORRECT,
    WorkerStatus.DRAINING: RARENESS,
    WorkerStatus.STOPPING: RARENESS,
    WorkerStatus.LOST: WRONG,
    WorkerStatus.OFFLINE: NEUTRAL,
}


def _slots(one: QueueEntry | JobSummary) -> str:
    size = f"{one.gpus} GPU{'s' if one.gpus > 1 else ''}" if one.gpus else "1 CPU slot"
    return size if one.machines == 1 else f"{one.machines} × {size}"


def _starts(entry: QueueEntry) -> str:
    if entry.estimated_start is None:
        return "–"
    seconds = (entry.estimated_start - datetime.now(UTC)).total_seconds()
    return f"in about {duration(seconds)}" if seconds > 1 else "now"


def _waiting_row(entry: QueueEntry) -> str:
    place = str(entry.position) if entry.position else "–"
    return (
        f'<tr><td data-label="#">{place}</td><td>{job_link(entry.job_id, entry.name)}</td>'
        f'<td data-label="Project">{escape(entry.project)}</td><td data-label="User">{escape(entry.user)}</td>'
        f'<td data-label="Priority">{escape(entry.priority)}</td><td data-label="Resources">{_slots(entry)}</td>'
        f'<td>{escape(entry.explanation)}</td><td data-label="Est. start">{_starts(entry)}</td></tr>'
    )


def _running_row(job: JobSummary) -> str:
    seconds = elapsed(job)
    progress = "–"
    if job.steps_total:
        bar = progress_bar(job.step / job.steps_total, POLICY, f"progress of {job.name}")
        progress = f'{bar}<span style="font-size:.8rem">{job.step} / {job.steps_total}</span>'
    return (
        f"<tr><td>{job_link(job.id, job.name)}</td><td>{status_chip(job.status)}</td>"
        f'<td data-label="Project">{escape(job.project)}</td><td data-label="User">{escape(job.user)}</td>'
        f'<td data-label="Resources">{_slots(job)}</td><td>{progress}</td>'
        f'<td data-label="Running for">{"–" if seconds is None else duration(seconds)}</td></tr>'
    )


def _jobs() -> bool:
    """Draw the running and the waiting jobs. Return true if there are any."""
    waiting = service.whole_queue()
    running = service.jobs(status=[status for status in JobStatus if status.held], limit=MAX_SHOWN).data
    st.subheader(f"Running ({len(running)})", anchor=False)
    if running:
        st.html(table(RUNNING_TITLES, map(_running_row, running)))
    else:
        st.caption("No running jobs")
    st.subheader(f"Waiting ({len(waiting)})", anchor=False)
    if waiting:
        st.html(table(WAITING_TITLES, map(_waiting_row, waiting[:MAX_SHOWN])))
        if len(waiting) > MAX_SHOWN:
            st.caption(f"First {MAX_SHOWN} of {len(waiting)}. `calibrl queue` lists all.")
    else:
        st.caption("Queue is empty")
    return bool(running or waiting)


def _machine(worker: Worker) -> str:
    silent = (datetime.now(UTC) - worker.heartbeat_at).total_seconds()
    on_gpus = {gpu.job_id for gpu in worker.gpus}
    on_cpu = [id for id in worker.jobs if id not in on_gpus]
    facts = [f"{worker.cpu_slots} CPU slot{'s' if worker.cpu_slots != 1 else ''}, {len(on_cpu)} in use"]
    facts += [f"{name}: {value}" for name, value in worker.labels.items()]
    if worker.status in (WorkerStatus.LOST, WorkerStatus.OFFLINE):
        facts.append(f"last heartbeat {duration(silent)} ago")
    head = (
        '<div style="display:flex;flex-wrap:wrap;gap:.4rem .9rem;align-items:center">'
        f'<h3 style="font-size:1.05rem;margin:0;padding:0;overflow-wrap:anywhere">{escape(worker.name)}</h3>'
        f"{chip(worker.status.value, MACHINE_COLOURS[worker.status])}"
        f'<span style="opacity:.8;font-size:.9rem">{escape(" · ".join(facts))}</span></div>'
    )
    if not worker.gpus:
        return head
    return head + gpu_table(worker.gpus)


def _machines() -> None:
    st.subheader("Machines", anchor=False)
    machines = service.workers()
    if not machines:
        states.empty("No machines yet", "Start a worker. It registers itself and then takes jobs.")
    for worker in machines:
        with st.container(border=True):
            st.html(_machine(worker))


def _live(shown_as_active: bool) -> None:
    """Draw the queue at every tick. The page runs again if the pace changes: the queue is empty, or no longer empty."""
    active = shown_as_active
    with states.explained("trouble-live"), states.tolerated():
        active = _jobs()
        _machines()
    if active != shown_as_active:
        st.session_state["queue-active"] = active
        st.rerun()


def _request(change: Callable[[], object]) -> None:
    """Request a change and run the page again, or show the error."""
    try:
        change()
    except CalibrlError as error:
        st.text(str(error))
        return
    service.clear_job_caches()
    st.rerun()


def _drain(machines: list[Worker]) -> None:
    with st.form("drain", border=False):
        st.write("**Drain a machine**")
        name = st.selectbox("Machine", [worker.name for worker in machines])
        now = st.checkbox("Also stop running jobs at a checkpoint and requeue them")
        drain, again = st.columns(2)
        if drain.form_submit_button("Drain", width="stretch"):
            _request(lambda: service.client().drain(name, now=now))
        if again.form_submit_button("Undrain", width="stretch"):
            _request(lambda: service.client().undrain(name))


def _prioritise(waiting: list[QueueEntry]) -> None:
    with st.form("priority", border=False):
        st.write("**Change priority**")
        names = {entry.job_id: f"{entry.name} ({entry.priority})" for entry in waiting}
        chosen: UUID = st.selectbox("Job", list(names), format_func=lambda id: names[id])
        priority: Priority = st.selectbox("Priority", get_args(Priority), index=1)
        if st.form_submit_button("Change", width="stretch"):
            _request(lambda: service.client().prioritise(chosen, priority))


def _actions(me: Me) -> None:
    """Draw the actions that the viewer is allowed."""
    waiting = [entry for entry in service.whole_queue() if me.may_change(entry.project)]
    machines = service.workers() if me.admin and me.scope == "write" else []
    if not waiting and not machines:
        return
    with st.popover("Manage", icon=":material/tune:"):
        if waiting:
            _prioritise(waiting)
        if machines:
            _drain(machines)


def _hours() -> None:
    """Draw the hours of a project when they are asked for: they cost the service more than the queue."""
    with st.expander(
        "Where the hours went", icon=":material/hourglass_bottom:", on_change="rerun", key="hours"
    ) as shown:
        if not shown.open:
            return
        left, right = st.columns(2)
        project = left.selectbox("Project", catalogue.projects(), key="hours-project")
        days = right.selectbox("Period", PERIODS, 1, format_func=lambda days: f"Last {days} days", key="hours-days")
        with states.tolerated():
            hours.project_hours(service.project_hours(project, days))


def page() -> None:
    """Draw the page."""
    me = service.me()
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Queue", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(me)
    st.caption(FAIR_SHARE)
    active = st.session_state.get("queue-active", True)
    st.fragment(_live, run_every=service.LIST_TICK if active else service.IDLE_TICK)(active)
    _hours()


with states.explained():
    page()
