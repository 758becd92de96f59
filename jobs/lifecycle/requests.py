"""What people ask of a job: submit, cancel, pause, resume, retry, another priority."""

from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from jobs import models, specs
from jobs.errors import Conflict, FieldError, Invalid, QuotaExceeded
from jobs.lifecycle.dispatch import wake_for_free_slots
from jobs.lifecycle.status import change
from jobs.repository import datasets, events, jobs, projects, workers
from jobs.schemas import EvaluateSpec, JobStatus, Priority, Reason, TrainSpec

_HELD_AT_ONCE = (JobStatus.QUEUED, JobStatus.WAITING)


def submit(
    session: Session, spec: TrainSpec | EvaluateSpec, *, actor: str, among: frozenset[str] | None = None
) -> models.Job:
    """Check a spec against what exists, and add its job: queued, or waiting for the jobs it depends on.

    `among`: the projects that exist for who asks, and whose jobs do; None: all.

    Raises:
        Invalid: fields that can't be met, each named.
        QuotaExceeded: the project has as many jobs waiting as it may.
    """
    found = specs.text_problems(spec) or [*specs.file_problems(spec), *specs.plugin_problems(spec)]
    held = jobs.hold(session, specs.dependencies(spec))
    known = {id: job for id, job in held.items() if among is None or job.project in among}
    data = datasets.hold(session, specs.known_data(spec))
    found += [*specs.resource_problems(spec), *specs.data_problems(spec, data)]
    found += [*specs.job_problems(spec, known), *_gpu_problems(session, spec.resources.gpus)]
    project = projects.lock(session, spec.project) if among is None or spec.project in among else None
    if project is None:
        found.append(FieldError("project", f"there is no project {spec.project!r}"))
    if found or project is None:
        raise Invalid("The job was not accepted.", tuple(found))
    _check_room(session, project)
    waits = sum(job.status is not JobStatus.SUCCEEDED for job in known.values())
    job = models.Job(
        id=uuid4(),
        name=spec.name,
        kind=spec.kind,
        project=spec.project,
        user=actor,
        priority=spec.priority,
        labels=spec.labels,
        gpus=spec.resources.gpus,
        spec=spec.model_dump(mode="json"),
        dependencies=[models.JobDependency(depends_on_id=id) for id in sorted(known)],
        datasets=[models.JobDataset(dataset_id=id) for id in sorted(data)],
    )
    session.add(job)
    message = f"waits for {waits} job{'s' if waits > 1 else ''}" if waits else None
    to = JobStatus.WAITING if waits else JobStatus.QUEUED
    change(session, job, to, type="submitted", actor=actor, message=message)
    wake_for_free_slots(session)
    return job


def cancel(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """End a job before its time: at once unless a worker holds it, else by telling that at its next heartbeat.

    Raises:
        NotFound: no such job.
        Conflict: the job has already ended, or is being cancelled.
    """
    job = jobs.lock(session, job_id)
    _must_not_have_ended(job)
    if job.status is JobStatus.CANCELLING:
        raise Conflict(f"Job {job_id} is already being cancelled.")
    to = JobStatus.CANCELLING if job.status in jobs.LEASED else JobStatus.CANCELLED
    change(session, job, to, actor=actor, reason=Reason.USER)
    wake_for_free_slots(session)  # something may have been kept for it
    return job


def pause(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Hold a job: at once where it has not started, else after its worker has had it write a checkpoint.

    Raises:
        NotFound: no such job.
        Conflict: the job has ended, or is paused, or on its way to either.
    """
    job = jobs.lock(session, job_id)
    _must_not_have_ended(job)
    if job.status not in (*_HELD_AT_ONCE, JobStatus.RUNNING):
        raise Conflict(f"Job {job_id} is already {job.status}.")
    to = JobStatus.PAUSED if job.status in _HELD_AT_ONCE else JobStatus.PAUSING
    change(session, job, to, actor=actor, reason=Reason.USER)
    wake_for_free_slots(session)
    return job


def resume(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Put a paused job back in line; it goes on from its last checkpoint.

    Raises:
        NotFound: no such job.
        Conflict: the job is not paused.
    """
    job, needed = _lock_with_needed(session, job_id)
    _must_not_have_ended(job)
    if job.status is JobStatus.PAUSING:
        raise Conflict(f"Job {job_id} is still being paused; resume it once it is paused.")
    if job.status is not JobStatus.PAUSED:
        raise Conflict(f"Job {job_id} is not paused: it is {job.status}.")
    _put_in_line(session, job, needed, actor=actor, type="resumed")
    return job


def retry(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Run a failed or cancelled job again, from its last checkpoint where it left one.

    Raises:
        NotFound: no such job.
        Conflict: the job has not failed and was not cancelled, or a job that it depends on has.
    """
    job, needed = _lock_with_needed(session, job_id)
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise Conflict(f"Job {job_id} is {job.status}: only a failed or cancelled job can be tried again.")
    job.forgiven, job.result, job.finished_at = job.attempt, None, None
    _put_in_line(session, job, needed, actor=actor, type="retried")
    return job


def prioritise(session: Session, job_id: UUID, priority: Priority, *, actor: str) -> models.Job:
    """Give a job that has not ended another priority class.

    Raises:
        NotFound: no such job.
        Conflict: the job has ended.
    """
    job = jobs.lock(session, job_id)
    _must_not_have_ended(job)
    if job.priority != priority:
        job.priority = priority
        job.spec = {**job.spec, "priority": priority}
        events.add(session, job.id, "priority", actor=actor, message=priority)
        wake_for_free_slots(session)
    return job


def _lock_with_needed(session: Session, job_id: UUID) -> tuple[models.Job, list[models.Job]]:
    """A job, locked, and those it depends on, held; these first, as all do: they are older, and end with theirs locked
    and then lock it."""
    needed = jobs.hold(session, set(jobs.get(session, job_id).depends_on))
    return jobs.lock(session, job_id), [*needed.values()]


def _put_in_line(session: Session, job: models.Job, needed: list[models.Job], *, actor: str, type: str) -> None:
    lost = [one for one in needed if one.status in (JobStatus.FAILED, JobStatus.CANCELLED)]
    if lost:
        raise Conflict(f"Job {job.id} depends on job {lost[0].id}, which is {lost[0].status}: retry that one first.")
    waits = any(one.status is not JobStatus.SUCCEEDED for one in needed)
    change(session, job, JobStatus.WAITING if waits else JobStatus.QUEUED, type=type, actor=actor)
    wake_for_free_slots(session)


def _must_not_have_ended(job: models.Job) -> None:
    if job.status.final:
        raise Conflict(f"Job {job.id} has already ended: it is {job.status}.")


def _gpu_problems(session: Session, gpus: int) -> list[FieldError]:
    if gpus <= (largest := workers.largest(session) if gpus else 0):
        return []
    have = f"the largest has {largest}" if largest else "none has a GPU; ask for 0"
    return [FieldError("resources.gpus", f"no machine has {gpus} GPU{'s' if gpus > 1 else ''}: {have}")]


def _check_room(session: Session, project: models.Project) -> None:
    if project.max_queued is not None and projects.count_open(session, project.slug) >= project.max_queued:
        raise QuotaExceeded(f"Project {project.slug} may have {project.max_queued} jobs waiting, and has.")
