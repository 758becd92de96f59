"""Reads from the API, shared by everyone who looks; `following.py` has those that grow as a job goes on."""

from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError, Client
from calibrl.schemas import Checkpoint, Job, JobSummary, Me, Page, QueueEntry, Sample, StoredFile, Worker
from calibrl.schemas import Series as CurveRecord
from dashboard import signin

TICK = 1.0  # seconds between a live panel's reads
LIST_TICK = 2.0  # seconds between the jobs list's reads while a job on it is yet to end
IDLE_TICK = 10.0  # seconds between them when all have ended: a new job shows by itself
FRESH = 0.5  # seconds for which a read serves every viewer
DERIVED = 50  # jobs that are shown of those that come of one
FEW_POINTS = 32  # of a curve in a list's row
QUEUE_FRESH = 5.0  # the same for the queue, for which the service makes a whole plan


@st.cache_resource(max_entries=256, show_spinner=False)
def _client(key: str) -> Client:
    return Client(api_key=key)


def client() -> Client:
    """The API client of who looks: the service sees to it that nobody reads more than they may.

    What is shared between viewers below goes by a job's id: a page, and each run of a fragment of it, reads the job
    itself first, with the viewer's own key (`states.reread`).
    """
    return _client(signin.key())


def jobs(**wanted: Any) -> Page[JobSummary]:
    """A page of the viewer's jobs, as `Client.jobs` chooses and sorts them."""
    return _jobs(signin.key(), wanted)


@st.cache_resource(ttl=FRESH, max_entries=256, show_spinner=False)
def _jobs(key: str, wanted: dict[str, Any]) -> Page[JobSummary]:
    return _client(key).jobs(**wanted)


def job(job_id: str) -> Job:
    """A job as it stands, if the viewer may see it."""
    return _job(signin.key(), job_id)


@st.cache_resource(ttl=FRESH, max_entries=1024, show_spinner=False)
def _job(key: str, job_id: str) -> Job:
    return _client(key).job(job_id)


def changed() -> None:
    """Read jobs anew: somebody here has just asked something of one."""
    for cached in (_job, _jobs, _queue, _whole_queue, _workers):
        cached.clear()


def queue(project: str) -> dict[UUID, QueueEntry]:
    """A project's jobs that have not started, by id."""
    return _queue(signin.key(), project)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def _queue(key: str, project: str) -> dict[UUID, QueueEntry]:
    return {entry.job_id: entry for entry in _client(key).queue(project)}


def whole_queue() -> list[QueueEntry]:
    """The viewer's jobs that have not started, those in line first."""
    return _whole_queue(signin.key())


@st.cache_resource(ttl=FRESH * 4, max_entries=256, show_spinner=False)
def _whole_queue(key: str) -> list[QueueEntry]:
    return _client(key).queue()


def workers() -> list[Worker]:
    """The machines that run jobs."""
    return _workers(signin.key())


@st.cache_resource(ttl=FRESH * 2, max_entries=256, show_spinner=False)
def _workers(key: str) -> list[Worker]:
    return _client(key).workers()


def me() -> Me:
    """Who looks, and what they may do."""
    return _me(signin.key())


@st.cache_resource(ttl=30.0, max_entries=256, show_spinner=False)
def _me(key: str) -> Me:
    return _client(key).me()


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def checkpoints(job_id: UUID) -> list[Checkpoint]:
    return client().checkpoints(job_id)


@st.cache_resource(max_entries=128, show_spinner=False)
def sample(job_id: UUID, sample_id: int) -> Sample:
    """A sampled group, which never changes once it is there."""
    return client().sample(job_id, sample_id)


@st.cache_resource(ttl=30.0, max_entries=1024, show_spinner=False)
def checkpoint_bytes(job_id: UUID, step: int) -> int | None:
    """How large a checkpoint is; None where the API can't reach its files."""
    try:
        return sum(file.bytes for file in client().checkpoint(job_id, step).files)
    except CalibrlError:
        return None


@st.cache_resource(max_entries=256, show_spinner=False)
def result_files(job_id: UUID, attempt: int) -> list[StoredFile]:
    """The files with the results of an evaluation that has succeeded."""
    return client().results(job_id)


def derived(job_id: UUID) -> list[JobSummary]:
    """The viewer's jobs that come of a job, oldest first: forks, what begins with its checkpoints or judges them."""
    return _derived(signin.key(), job_id)


@st.cache_resource(ttl=10.0, max_entries=256, show_spinner=False)
def _derived(key: str, job_id: UUID) -> list[JobSummary]:
    return _client(key).jobs(derived_from=job_id, sort="created", limit=DERIVED).data


@st.cache_resource(ttl=LIST_TICK, max_entries=512, show_spinner=False)
def few_points(jobs: tuple[tuple[UUID, int, int], ...], names: tuple[str, ...]) -> dict[tuple[UUID, str], CurveRecord]:
    """Curves in a few points of jobs with about as many steps as one another, each given as (id, attempt, step)."""
    found = client().series([id for id, *_ in jobs], names, points=FEW_POINTS)
    return {(series.job_id, series.name): series for series in found.series}
