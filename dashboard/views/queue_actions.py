"""Actions on a job of the queue, and on a machine: the URL names it (`?manage=ID`, `?machine=NAME`), and a card above
the queue, which does not move, has the buttons.
"""

from typing import get_args
from urllib.parse import quote
from uuid import UUID

import streamlit as st

from calibrl.schemas import Job, Me, Priority, Worker, WorkerStatus
from dashboard.forms.changes import change
from dashboard.forms.job_picker import readable
from dashboard.markup import as_markdown, escape
from dashboard.reads import service
from dashboard.views import job_actions

JOB, MACHINE = "manage", "machine"  # parameters of the URL
DRAINED = (WorkerStatus.DRAINING, WorkerStatus.STOPPING)


def job_link(id: UUID, name: str) -> str:
    """Return the link that opens the actions on a job."""
    return _link(f"{JOB}={id}", name)


def machine_link(name: str) -> str:
    """Return the link that opens the actions on a machine."""
    return _link(f"{MACHINE}={quote(name)}", name)


def _link(query: str, name: str) -> str:
    label = f"Manage {escape(name)}"
    return f'<a href="queue?{query}" target="_self" style="color:inherit" aria-label="{label}">Manage</a>'


def draw(me: Me) -> None:
    """Draw the actions on the job or the machine that the URL names, if the viewer is allowed them."""
    if text := st.query_params.get(JOB):
        try:
            job = readable(UUID(text))
        except ValueError:
            job = None
        if job is None or not me.may_change(job.project):
            st.warning("The URL names a job that does not exist, or that you cannot change.")
        else:
            with st.container(border=True, key="card-manage"):
                _job(job)
    elif (name := st.query_params.get(MACHINE)) and me.admin and me.scope == "write":
        found = next((worker for worker in service.workers() if worker.name == name), None)
        if found is None:
            st.warning(as_markdown(f"There is no machine {name!r}."))
        else:
            with st.container(border=True, key="card-manage"):
                _machine(found)


def _job(job: Job) -> None:
    st.write(f"**{as_markdown(job.name)}** · {job.status.value} · priority {job.priority}")
    if job.status.final:
        st.caption("The job has ended.")
        _close()
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        options = get_args(Priority)
        priority: Priority = st.selectbox("Priority", options, options.index(job.priority), key="priority", width=140)
        if st.button("Change priority", disabled=priority == job.priority):
            change(lambda: service.client().prioritise(job.id, priority))
        job_actions.draw_pause(job)
        job_actions.draw_cancel(job)
        _close()


def _machine(worker: Worker) -> None:
    number = len(worker.jobs)
    runs = f"{number} job{'s' if number != 1 else ''} {'run' if number != 1 else 'runs'} on it"
    st.write(f"**{as_markdown(worker.name)}** · {worker.status.value} · {runs}")
    with st.container(horizontal=True, vertical_alignment="center"):
        if worker.status in DRAINED:
            if st.button("Undrain", type="primary", help="The machine takes jobs again."):
                change(lambda: service.client().undrain(worker.name))
        else:
            now = st.checkbox(f"Also stop its jobs at a checkpoint and requeue them ({number})", disabled=not number)
            if st.button("Drain", type="primary", help="No new job starts on the machine."):
                change(lambda: service.client().drain(worker.name, now=now))
        _close()


def _close() -> None:
    if st.button("Close", icon=":material/close:", type="tertiary"):
        st.query_params.clear()
        st.rerun()
