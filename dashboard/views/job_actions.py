"""Pause, resume and cancel: the buttons on a job, on every page."""

import streamlit as st

from calibrl.schemas import Job, JobStatus, JobSummary
from dashboard.forms.changes import change
from dashboard.reads import service

PAUSABLE = (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING)
EFFECT_ON_SEVERAL = "Running jobs save a checkpoint and stop. The others leave the queue."
DEPENDENTS = "Jobs that depend on {} will fail."


def draw_pause(job: Job) -> None:
    """Draw the button that pauses or resumes a job, if its status allows that."""
    client = service.client()
    if job.status in PAUSABLE and st.button(
        "Pause", icon=":material/pause:", key="pause", help="A running job saves a checkpoint and frees its slot."
    ):
        change(lambda: client.pause(job.id))
    if job.status is JobStatus.PAUSED and st.button("Resume", icon=":material/play_arrow:", key="resume"):
        change(lambda: client.resume(job.id))


def draw_cancel(job: Job) -> None:
    """Draw the button that cancels a job, if its status allows that, with the effect."""
    if job.status.final or job.status is JobStatus.CANCELLING:
        return
    with st.popover("Cancel", icon=":material/stop_circle:"):
        st.write(f"{_effect_of_cancel(job)} {DEPENDENTS.format('this job')}")
        if st.button("Cancel job", type="primary", key="cancel"):
            change(lambda: service.client().cancel(job.id))


def _effect_of_cancel(job: JobSummary) -> str:
    if job.status.held:
        return "The trainer saves a checkpoint and stops."
    if job.attempt == 0:
        return "The job has not started. It leaves the queue."
    return f"The job does not run now. Its files up to step {job.step} stay."
