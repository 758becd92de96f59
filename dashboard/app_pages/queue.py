"""The queue: who waits for what and why, what runs, and how the machines and their GPUs do."""

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
from dashboard.reads import data

MOST = 200  # jobs that are shown waiting, or running
WAITING_TITLES = ("Place", "Job", "Project", "User", "Class", "Needs", "Why it waits", "Starts")
RUNNING_TITLES = ("Job", "Status", "Project", "User", "Takes", "Progress", "Running for")
MACHINE_COLOURS = {
    WorkerStatus.ONLINE: CORRECT,
    WorkerStatus.DRAINING: RARENESS,
    WorkerStatus.STOPPING: RARENESS,
    WorkerStatus.LOST: WRONG,
    WorkerStatus.OFFLINE: NEUTRAL,
}


def _slots(gpus: int) -> str:
    return f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "a CPU slot"


def _starts(entry: QueueEntry) -> str:
    if entry.estimated_start is None:
        return "–"
    seconds = (entry.estimated_start - datetime.now(UTC)).total_seconds()
    return f"in about {duration(seconds)}" if seconds > 1 else "now"


def _waiting_row(entry: QueueEntry) -> str:
    place = str(entry.position) if entry.position else "–"
    return (
        f'<tr><td data-label="Place">{place}</td><td>{job_link(entry.job_id, entry.name)}</td>'
        f'<td data-label="Project">{escape(entry.project)}</td><td data-label="User">{escape(entry.user)}</td>'
        f'<td data-label="Class">{escape(entry.priority)}</td><td data-label="Needs">{_slots(entry.gpus)}</td>'
        f'<td>{escape(entry.explanation)}</td><td data-label="Starts">{_starts(entry)}</td></tr>'
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
        f'<td data-label="Takes">{_slots(job.gpus)}</td><td>{progress}</td>'
        f'<td data-label="For">{"–" if seconds is None else duration(seconds)}</td></tr>'
    )


def _jobs() -> bool:
    """Draw who runs and who waits; whether there are any."""
    waiting = data.whole_queue()
    running = data.jobs(status=[status for status in JobStatus if status.held], limit=MOST).data
    st.subheader(f"Running ({len(running)})", anchor=False)
    if running:
        st.html(table(RUNNING_TITLES, map(_running_row, running)))
    else:
        st.caption("Nothing runs just now.")
    st.subheader(f"Waiting ({len(waiting)})", anchor=False)
    if waiting:
        st.html(table(WAITING_TITLES, map(_waiting_row, waiting[:MOST])))
        if len(waiting) > MOST:
            st.caption(f"The first {MOST} are shown; the command calibrl queue lists all.")
    else:
        st.caption("Nobody waits: the next job starts at once.")
    return bool(running or waiting)


def _machine(worker: Worker) -> str:
    heard = (datetime.now(UTC) - worker.heartbeat_at).total_seconds()
    on_gpus = {gpu.job_id for gpu in worker.gpus}
    on_cpu = [id for id in worker.jobs if id not in on_gpus]
    facts = [f"{worker.cpu_slots} CPU slot{'s' if worker.cpu_slots != 1 else ''}, {len(on_cpu)} taken"]
    facts += [f"{name}: {value}" for name, value in worker.labels.items()]
    if worker.status in (WorkerStatus.LOST, WorkerStatus.OFFLINE):
        facts.append(f"last heard of {duration(heard)} ago")
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
    machines = data.workers()
    if not machines:
        states.empty("No machine yet", "Start a worker: it registers by itself, and takes jobs from then on.")
    for worker in machines:
        with st.container(border=True):
            st.html(_machine(worker))


def _live(shown_as_active: bool) -> None:
    """The queue at every tick. Once it is empty, or is no longer, the page is run anew for another pace."""
    active = shown_as_active
    with states.explained("trouble-live"), states.tolerated():
        active = _jobs()
        _machines()
    if active != shown_as_active:
        st.session_state["queue-active"] = active
        st.rerun()


def _ask(act: Callable[[], object]) -> None:
    try:
        act()
    except CalibrlError as error:
        st.text(str(error))
        return
    data.changed()
    st.rerun()


def _drain(machines: list[Worker]) -> None:
    with st.form("drain", border=False):
        st.write("**Drain a machine**")
        name = st.selectbox("Machine", [worker.name for worker in machines])
        now = st.checkbox("Now: give back what it runs, from a checkpoint")
        drain, again = st.columns(2)
        if drain.form_submit_button("Drain", width="stretch"):
            _ask(lambda: data.client().drain(name, now=now))
        if again.form_submit_button("Take jobs again", width="stretch"):
            _ask(lambda: data.client().undrain(name))


def _prioritise(waiting: list[QueueEntry]) -> None:
    with st.form("priority", border=False):
        st.write("**Change a waiting job's class**")
        names = {entry.job_id: f"{entry.name} ({entry.priority})" for entry in waiting}
        chosen: UUID = st.selectbox("Job", list(names), format_func=lambda id: names[id])
        priority: Priority = st.selectbox("Class", get_args(Priority), index=1)
        if st.form_submit_button("Change", width="stretch"):
            _ask(lambda: data.client().prioritise(chosen, priority))


def _actions(me: Me) -> None:
    """For those who may; what others may not do is not offered."""
    waiting = [entry for entry in data.whole_queue() if me.may_change(entry.project)]
    machines = data.workers() if me.admin and me.scope == "write" else []
    if not waiting and not machines:
        return
    with st.popover("Change something", icon=":material/tune:"):
        if waiting:
            _prioritise(waiting)
        if machines:
            _drain(machines)


def page() -> None:
    me = data.me()
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Queue", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(me)
    active = st.session_state.get("queue-active", True)
    st.fragment(_live, run_every=data.LIST_TICK if active else data.IDLE_TICK)(active)


with states.explained():
    page()
