"""The queue: waiting jobs with their reasons, running jobs, and machines with their GPUs."""

from collections.abc import Iterator
from datetime import UTC, datetime

import streamlit as st

from calibrl.schemas import JobStatus, JobSummary, Me, QueueEntry, Worker, WorkerStatus
from dashboard import states
from dashboard.markup import (
    as_markdown,
    chip,
    duration,
    elapsed,
    escape,
    gpu_table,
    job_link,
    progress_bar,
    status_chip,
    table,
)
from dashboard.palette import CORRECT, NEUTRAL, POLICY, RARENESS, WRONG
from dashboard.reads import catalogue, service
from dashboard.views import hours, queue_actions

PERIODS = (7, 30, 90, 366)  # days
MAX_SHOWN = 200  # waiting jobs, and running jobs
WAITING_TITLES = ("#", "Job", "Project", "User", "Priority", "Resources", "Reason", "Est. start", "")
RUNNING_TITLES = ("Job", "Status", "Project", "User", "Resources", "Progress", "Running for", "")
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


def _waiting_row(entry: QueueEntry, me: Me) -> str:
    place = str(entry.position) if entry.position else "–"
    return (
        f'<tr><td data-label="#">{place}</td><td>{job_link(entry.job_id, entry.name)}</td>'
        f'<td data-label="Project">{escape(entry.project)}</td><td data-label="User">{escape(entry.user)}</td>'
        f'<td data-label="Priority">{escape(entry.priority)}</td><td data-label="Resources">{_slots(entry)}</td>'
        f'<td>{escape(entry.explanation)}</td><td data-label="Est. start">{_starts(entry)}</td>'
        f"<td>{queue_actions.job_link(entry.job_id, entry.name) if me.may_change(entry.project) else ''}</td></tr>"
    )


def _running_row(job: JobSummary, me: Me) -> str:
    seconds = elapsed(job)
    progress = "–"
    if job.steps_total:
        bar = progress_bar(job.step / job.steps_total, POLICY, f"progress of {job.name}")
        progress = f'{bar}<span style="font-size:.8rem">{job.step} / {job.steps_total}</span>'
    return (
        f"<tr><td>{job_link(job.id, job.name)}</td><td>{status_chip(job.status)}</td>"
        f'<td data-label="Project">{escape(job.project)}</td><td data-label="User">{escape(job.user)}</td>'
        f'<td data-label="Resources">{_slots(job)}</td><td>{progress}</td>'
        f'<td data-label="Running for">{"–" if seconds is None else duration(seconds)}</td>'
        f"<td>{queue_actions.job_link(job.id, job.name) if me.may_change(job.project) else ''}</td></tr>"
    )


def _jobs() -> bool:
    """Draw the running and the waiting jobs. Return true if there are any."""
    me, waiting = service.me(), service.whole_queue()
    running = service.jobs(status=[status for status in JobStatus if status.held], limit=MAX_SHOWN).data
    machines = service.workers()
    others = len({id for machine in machines for id in machine.jobs} - {job.id for job in running})
    st.subheader(f"Running ({len(running)})", anchor=False)
    if running:
        st.html(table(RUNNING_TITLES, (_running_row(job, me) for job in running)))
    elif not others:
        st.caption("No running jobs")
    if others:
        st.caption(f"{_count(others, 'running job')} in projects that you cannot see")
    st.subheader(f"Waiting ({len(waiting)})", anchor=False)
    if waiting:
        for note in _notes(waiting, machines):
            st.caption(note)
        st.html(table(WAITING_TITLES, (_waiting_row(entry, me) for entry in waiting[:MAX_SHOWN])))
        if len(waiting) > MAX_SHOWN:
            st.caption(f"First {MAX_SHOWN} of {len(waiting)}. `calibrl queue` lists all.")
    else:
        st.caption("Queue is empty")
    return bool(running or waiting)


def _notes(waiting: list[QueueEntry], machines: list[Worker]) -> Iterator[str]:
    """Yield what the rows do not say: jobs of other projects between them, and machines that are draining."""
    positions = [entry.position for entry in waiting if entry.position is not None]
    if positions and (hidden := max(positions) - len(positions)):
        yield f"{_count(hidden, 'job')} between these positions, in projects that you cannot see"
    draining = [machine.name for machine in machines if machine.status is WorkerStatus.DRAINING]
    if draining:
        yield f"Draining machines, which start no new job: {as_markdown(', '.join(draining))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _machine(worker: Worker, me: Me) -> str:
    silent = (datetime.now(UTC) - worker.heartbeat_at).total_seconds()
    on_gpus = {gpu.job_id for gpu in worker.gpus}
    on_cpu = [id for id in worker.jobs if id not in on_gpus]
    facts = [f"{worker.cpu_slots} CPU slot{'s' if worker.cpu_slots != 1 else ''}, {len(on_cpu)} in use"]
    facts += [f"{name}: {value}" for name, value in worker.labels.items()]
    if worker.status in (WorkerStatus.LOST, WorkerStatus.OFFLINE):
        facts.append(f"last heartbeat {duration(silent)} ago")
    manage = queue_actions.machine_link(worker.name) if me.admin and me.scope == "write" else ""
    head = (
        '<div style="display:flex;flex-wrap:wrap;gap:.4rem .9rem;align-items:center">'
        f'<h3 style="font-size:1.05rem;margin:0;padding:0;overflow-wrap:anywhere">{escape(worker.name)}</h3>'
        f"{chip(worker.status.value, MACHINE_COLOURS[worker.status])}"
        f'<span style="opacity:.8;font-size:.9rem">{escape(" · ".join(facts))}</span>{manage}</div>'
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
            st.html(_machine(worker, service.me()))


def _live(shown_as_active: bool) -> None:
    """Draw the queue at every tick. The page runs again if the pace changes: the queue is empty, or no longer empty."""
    active = shown_as_active
    with states.explained("trouble-live"), states.tolerated():
        active = _jobs()
        _machines()
    if active != shown_as_active:
        st.session_state["queue-active"] = active
        st.rerun()


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
    st.title("Queue", anchor=False)
    st.caption(FAIR_SHARE)
    queue_actions.draw(me)
    active = st.session_state.get("queue-active", True)
    st.fragment(_live, run_every=service.LIST_TICK if active else service.IDLE_TICK)(active)
    _hours()


with states.explained():
    page()
