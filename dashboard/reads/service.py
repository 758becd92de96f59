"""Cached reads from the API. `live.py` has the reads that grow while a job runs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError, Client
from calibrl.schemas import (
    Checkpoint,
    Job,
    JobHours,
    JobStatus,
    JobSummary,
    Me,
    Page,
    PersonVerdict,
    ProjectHours,
    PromptList,
    PromptPage,
    PromptVisits,
    QueueEntry,
    Sample,
    StoredFile,
    Trust,
    Worker,
)
from calibrl.schemas import Series as CurveRecord
from calibrl.schemas.jobs import MAX_IDS
from dashboard import signin

TICK = 1.0  # seconds between two reads of a live panel
LIST_TICK = 2.0  # seconds between two reads of the list of jobs while one of them is active
IDLE_TICK = 10.0  # the same if all have ended, so that a new job appears
LIVE_SECONDS = 5.0  # limit of a live read; it is tried again at once, and at the next tick
FRESH = 0.5  # seconds for which a read is cached
MAX_DERIVED = 50  # derived jobs shown of one job
MAX_EVALUATIONS = 1000  # of compared jobs, from which the latest of each is taken
FEW_POINTS = 32  # of a curve in a row of a list
SUMS_FRESH = 60.0  # the same for sums over all steps of a job
QUEUE_FRESH = 5.0  # the same for the queue, which costs the service a whole plan


@st.cache_resource(max_entries=256, show_spinner=False)
def _client(key: str) -> Client:
    return Client(api_key=key)


@st.cache_resource(max_entries=256, show_spinner=False)
def _live_client(key: str) -> Client:
    return Client(api_key=key, timeout=LIVE_SECONDS)


def live_client() -> Client:
    """Return the API client for live reads, which soon give up: the page then says how old its data are."""
    return _live_client(signin.key())


def client() -> Client:
    """Return the API client with the viewer's key: the service checks the access rights.

    Some reads below are shared between viewers, by job id. So a page, and each run of one of its fragments, first reads
    the job with the viewer's key (`states.reread`).
    """
    return _client(signin.key())


def jobs(**query: Any) -> Page[JobSummary]:
    """Return a page of the viewer's jobs; the arguments are those of `Client.jobs`."""
    return _jobs(signin.key(), query)


@st.cache_resource(ttl=FRESH, max_entries=256, show_spinner=False)
def _jobs(key: str, query: dict[str, Any]) -> Page[JobSummary]:
    return _client(key).jobs(**query)


def jobs_of(ids: Sequence[UUID], fields: Sequence[str] = ()) -> list[JobSummary]:
    """Return the jobs of these ids that the viewer can see, in this order, with these fields of their specs."""
    found: dict[UUID, JobSummary] = {}
    for start in range(0, len(ids), MAX_IDS):
        some = list(ids[start : start + MAX_IDS])
        found |= {job.id: job for job in jobs(ids=some, fields=list(fields), limit=MAX_IDS).data}
    return [found[id] for id in ids if id in found]


def job(job_id: str) -> Job:
    """Return the current state of a job, if the viewer has access."""
    return _job(signin.key(), job_id)


@st.cache_resource(ttl=FRESH, max_entries=1024, show_spinner=False)
def _job(key: str, job_id: str) -> Job:
    return _live_client(key).job(job_id)


def clear_job_caches() -> None:
    """Read jobs again: a viewer has just changed one."""
    for cached in (_job, _jobs, _queue, _whole_queue, _workers):
        cached.clear()


def queue(project: str) -> dict[UUID, QueueEntry]:
    """Return the jobs of a project that have not started, by id."""
    return _queue(signin.key(), project)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def _queue(key: str, project: str) -> dict[UUID, QueueEntry]:
    return {entry.job_id: entry for entry in _client(key).queue(project)}


def whole_queue() -> list[QueueEntry]:
    """Return the viewer's jobs that have not started, in queue order."""
    return _whole_queue(signin.key())


@st.cache_resource(ttl=FRESH * 4, max_entries=256, show_spinner=False)
def _whole_queue(key: str) -> list[QueueEntry]:
    return _client(key).queue()


def workers() -> list[Worker]:
    """Return the machines that run jobs."""
    return _workers(signin.key())


@st.cache_resource(ttl=FRESH * 2, max_entries=256, show_spinner=False)
def _workers(key: str) -> list[Worker]:
    return _client(key).workers()


@st.cache_resource(ttl=SUMS_FRESH, max_entries=256, show_spinner=False)
def hours(job_id: UUID) -> JobHours:
    """Return what the slot-hours of a job bought."""
    return client().hours(job_id)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def verdicts(job_id: UUID, sample_id: int) -> list[PersonVerdict]:
    """Return the verdicts of people on the completions of a sample."""
    return client().verdicts(job_id, sample_id=sample_id)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def trust(job_id: UUID) -> Trust:
    """Return the error rates of the verifiers of a job."""
    return client().trust(job_id)


def clear_verdicts() -> None:
    """Read verdicts again: a viewer has just given one."""
    verdicts.clear()
    trust.clear()


@st.cache_resource(ttl=SUMS_FRESH, max_entries=256, show_spinner=False)
def prompts(job_id: UUID, which: PromptList, limit: int) -> PromptPage:
    """Return prompts that a job has visited."""
    return client().prompts(job_id, which, limit=limit)


def prompt(job_id: UUID, digest: str) -> PromptVisits:
    """Return the visits of a prompt in a job, and in the other jobs that the viewer can see."""
    return _prompt(signin.key(), job_id, digest)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def _prompt(key: str, job_id: UUID, digest: str) -> PromptVisits:
    return _client(key).prompt(job_id, digest)


def project_hours(slug: str, days: int) -> ProjectHours:
    """Return what the slot-hours of a project bought, if the viewer has access."""
    return _project_hours(signin.key(), slug, days)


@st.cache_resource(ttl=30.0, max_entries=64, show_spinner=False)
def _project_hours(key: str, slug: str, days: int) -> ProjectHours:
    return _client(key).project_hours(slug, days=days)


def forget_me() -> None:
    """Read the roles of the viewers again."""
    _me.clear()


def me() -> Me:
    """Return the viewer with roles and scope."""
    return _me(signin.key())


@st.cache_resource(ttl=30.0, max_entries=256, show_spinner=False)
def _me(key: str) -> Me:
    return _client(key).me()


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def checkpoints(job_id: UUID) -> list[Checkpoint]:
    """Return the checkpoints of a job."""
    return client().checkpoints(job_id)


@st.cache_resource(max_entries=128, show_spinner=False)
def sample(job_id: UUID, sample_id: int) -> Sample:
    """Return a sampled group; it never changes."""
    return client().sample(job_id, sample_id)


@st.cache_resource(ttl=30.0, max_entries=1024, show_spinner=False)
def checkpoint_bytes(job_id: UUID, step: int) -> int | None:
    """Return the size of a checkpoint in bytes; None if the API server cannot read its files."""
    try:
        return sum(file.bytes for file in client().checkpoint(job_id, step).files)
    except CalibrlError:
        return None


@st.cache_resource(max_entries=256, show_spinner=False)
def result_files(job_id: UUID, attempt: int) -> list[StoredFile]:
    """Return the result files of a succeeded evaluation or audit."""
    return client().results(job_id)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def metric_names(job_id: UUID) -> list[str]:
    """Return the names of all metrics that a job has reported, in alphabetical order."""
    return sorted(row.name for row in client().metric_names(job_id))


def derived(job_id: UUID) -> list[JobSummary]:
    """Return the jobs derived from a job, oldest first: forks, and jobs that start from or evaluate its checkpoints."""
    return _derived(signin.key(), job_id)


@st.cache_resource(ttl=10.0, max_entries=256, show_spinner=False)
def _derived(key: str, job_id: UUID) -> list[JobSummary]:
    return _client(key).jobs(derived_from=job_id, sort="created", limit=MAX_DERIVED).data


def latest_evaluations(ids: Sequence[UUID]) -> dict[UUID, JobSummary]:
    """Return the latest succeeded evaluation of each of these trainings that has one, by training."""
    found: dict[UUID, JobSummary] = {}
    if ids:
        query = {"derived_from": list(ids), "kind": "evaluate", "status": JobStatus.SUCCEEDED, "fields": ["models"]}
        for evaluation in jobs(**query, limit=MAX_EVALUATIONS).data:  # newest first
            for model in evaluation.fields.get("models", []):
                if (trained := model.get("from_job")) and UUID(trained) in ids:
                    found.setdefault(UUID(trained), evaluation)
    return found


@st.cache_resource(ttl=LIST_TICK, max_entries=512, show_spinner=False)
def few_points(jobs: tuple[tuple[UUID, int, int], ...], names: tuple[str, ...]) -> dict[tuple[UUID, str], CurveRecord]:
    """Return curves with few points of jobs with a similar number of steps, each given as (id, attempt, step)."""
    curves = client().series([id for id, *_ in jobs], names, points=FEW_POINTS)
    return {(series.job_id, series.name): series for series in curves.series}
