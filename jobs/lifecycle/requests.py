"""Actions of users on a job: submit, fork, change, cancel, pause, resume, retry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from calibrl.schemas import (
    HOUR,
    MAX_LABELS,
    AnySpec,
    Fork,
    JobChanges,
    JobModel,
    JobStatus,
    Reason,
    Resources,
    TrainSpec,
)
from calibrl_core.config import ModelOptions
from calibrl_core.verifiers.python_function import python_rewards
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid, QuotaExceeded
from jobs.files import artifacts, pinned_checkpoints
from jobs.lifecycle.dispatch import plan_after_commit
from jobs.lifecycle.project_limits import priority_problem, project_problems
from jobs.lifecycle.status import change
from jobs.repository import checkpoints, datasets, events, janitor, jobs, projects, studies, workers
from jobs.settings import get_settings
from jobs.specs import checks
from jobs.specs.merge_patch import merged
from jobs.specs.references import References
from jobs.specs.reward_services import function_problems, service_problems

NAME_LENGTH = 115  # maximum length before -fork or -again is appended
_HELD_AT_ONCE = (JobStatus.QUEUED, JobStatus.WAITING)


@dataclass(frozen=True)
class Checked:
    """A checked spec: its references, with the jobs and datasets that they name, by id and share-locked, and the
    checkpoints of fixed steps."""

    spec: AnySpec
    references: References
    jobs: dict[UUID, models.Job]
    datasets: dict[UUID, models.Dataset]
    checkpoints: list[models.Checkpoint]

    @property
    def open_dependencies(self) -> int:
        """Number of dependencies that have not succeeded yet."""
        return sum(self.jobs[id].status is not JobStatus.SUCCEEDED for id in self.references.dependencies)


def check(session: Session, spec: AnySpec, visible_projects: frozenset[str] | None = None) -> Checked:
    """Check a spec against the database, and lock the queue of its project.

    Args:
        visible_projects: projects that the caller can see; None: all. Others and their jobs are treated as missing.

    Raises:
        Invalid: fields that are not valid; each is named.
        QuotaExceeded: the project has reached its limit of waiting jobs.
    """
    references = References.of(spec)
    problems = checks.size_problems(spec) or checks.text_problems(spec)
    problems = problems or [*checks.file_problems(references), *checks.plugin_problems(spec)]
    problems += [*checks.prompt_problems(spec), *service_problems(spec.rewards, spec.project)]
    problems += function_problems(spec.rewards)
    held = jobs.lock_shared(session, references.jobs)
    known = {id: job for id, job in held.items() if visible_projects is None or job.project in visible_projects}
    data = datasets.lock_shared(session, references.datasets)
    problems += [*checks.resource_problems(spec, references), *checks.data_problems(spec, references, data)]
    problems += [*checks.job_problems(references, known), *_machine_problems(session, spec.resources)]
    problems += _function_problems(session, spec)
    pinned, missing = _fixed_checkpoints(session, references, known)
    problems += missing
    project = (
        projects.lock_queue(session, spec.project)
        if visible_projects is None or spec.project in visible_projects
        else None
    )
    if project is None:
        problems.append(FieldError("project", f"project {spec.project!r} does not exist"))
    else:
        problems += project_problems(spec, project)
    if problems or project is None:
        raise Invalid("The job was not accepted.", tuple(problems))
    _check_room(session, project)
    return Checked(spec, references, known, data, pinned)


def _fixed_checkpoints(
    session: Session, references: References, existing: Mapping[UUID, models.Job]
) -> tuple[list[models.Checkpoint], list[FieldError]]:
    """Return the checkpoints of fixed steps that a spec names, and the errors of those that are missing."""
    named = {
        model.from_job: {checkpoint.step: checkpoint for checkpoint in checkpoints.of_job(session, model.from_job)}
        for _, model in references.job_models
        if model.from_job in existing and existing[model.from_job].kind == "train"
    }
    problems = checks.checkpoint_problems(references, named)
    rows = []
    for field, model in references.job_models:
        if isinstance(model.checkpoint, int) and (row := named.get(model.from_job, {}).get(model.checkpoint)):
            rows.append(row)
            if artifacts.find_checkpoint(row) is None:
                text = artifacts.missing_checkpoints([row.step], [artifacts.checkpoint_path(row)])
                problems.append(FieldError(f"{field}.checkpoint", text))
    return rows, problems


def new_job(checked: Checked, *, actor: str, id: UUID | None = None) -> models.Job:
    """Return the job of a checked spec, not yet added to the database."""
    spec, references = checked.spec, checked.references
    return models.Job(
        id=id or uuid4(),
        name=spec.name,
        kind=spec.kind,
        project=spec.project,
        user=actor,
        priority=spec.priority,
        labels=spec.labels,
        machines=spec.resources.machines,
        gpus=spec.resources.gpus,
        machine_labels=spec.resources.labels,
        timeout_seconds=spec.limits.timeout_seconds,
        spec=spec.model_dump(mode="json"),
        steps_total=spec.steps if isinstance(spec, TrainSpec) else None,
        dependencies=[models.JobDependency(depends_on_id=id) for id in sorted(references.dependencies)],
        datasets=[models.JobDataset(dataset_id=id) for id in sorted(references.datasets)],
        origins=[models.JobOrigin(from_id=id) for id in sorted(references.jobs)],
    )


def submit(
    session: Session,
    spec: AnySpec,
    *,
    actor: str,
    visible_projects: frozenset[str] | None = None,
    forked_from: UUID | None = None,
    forked_step: int | None = None,
    id: UUID | None = None,
) -> models.Job:
    """Check a spec, and add its job: queued, or waiting for its dependencies.

    Args:
        id: of the new job. None: a random one.
        visible_projects: as in `check`.
        forked_from: job whose spec was forked.
        forked_step: step of the checkpoint of that job from which the new job starts.

    Raises:
        Invalid: fields that are not valid; each is named.
        QuotaExceeded: the project has reached its limit of waiting jobs.
    """
    checked = check(session, spec, visible_projects)
    job = new_job(checked, actor=actor, id=id)
    job.forked_from, job.forked_step = forked_from, forked_step
    if forked_from is not None and forked_from not in checked.references.jobs:
        job.origins.append(models.JobOrigin(from_id=forked_from))
    pinned_checkpoints.pin(job.id, checked.checkpoints)
    session.add(job)
    waits = checked.open_dependencies
    message = f"waiting for {waits} {'dependencies' if waits > 1 else 'dependency'}" if waits else None
    to = JobStatus.WAITING if waits else JobStatus.QUEUED
    change(session, job, to, type="submitted", actor=actor, message=message)
    plan_after_commit(session)
    return job


def fork_spec(session: Session, job_id: UUID, fork: Fork) -> tuple[dict[str, Any], int | None]:
    """Return the spec of a job with the changes of a fork, to be checked like any other, and the step of the checkpoint
    from which a training job starts.

    Raises:
        NotFound: no such job.
        Invalid: the job has no such checkpoint.
    """
    job = jobs.get(session, job_id)
    spec, step = dict(job.spec), None
    if job.kind == "train":
        model = JobModel(from_job=job_id, checkpoint=fork.checkpoint)
        row = checkpoints.choose(session, job_id, fork.checkpoint)
        if row is None:
            have = [one.step for one in checkpoints.of_job(session, job_id)]
            fault = FieldError("checkpoint", checks.no_checkpoint(model, have))
            raise Invalid("The job cannot be forked at this checkpoint.", (fault,))
        step = row.step
        options = {name: value for name, value in job.spec["model"].items() if name in ModelOptions.model_fields}
        spec["model"] = {"from_job": str(job_id), "checkpoint": step, **options}
        spec["depends_on"] = []  # the dependencies have succeeded, since there is a checkpoint
    spec["name"] = f"{job.name[:NAME_LENGTH]}-fork"
    name = {"name": fork.name} if fork.name else {}
    return merged(spec, fork.changes | name), step


def repeated_spec(session: Session, job_id: UUID) -> dict[str, Any]:
    """Return the spec of a job under another name, to be checked like any other: it runs again from the start.

    Raises:
        NotFound: no such job.
    """
    job = jobs.get(session, job_id)
    return job.spec | {"name": f"{job.name[:NAME_LENGTH]}-again", "depends_on": []}


def cancel(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Cancel a job: at once if no worker holds it, else at its worker's next heartbeat.

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
    plan_after_commit(session)  # slots may have been reserved for it
    return job


def pause(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Pause a job: at once if it has not started, else after its worker has written a checkpoint.

    Raises:
        NotFound: no such job.
        Conflict: the job has ended, or is paused, or is about to be either.
    """
    job = jobs.lock(session, job_id)
    _must_not_have_ended(job)
    if job.status not in (*_HELD_AT_ONCE, JobStatus.RUNNING):
        raise Conflict(f"Job {job_id} is already {job.status}.")
    to = JobStatus.PAUSED if job.status in _HELD_AT_ONCE else JobStatus.PAUSING
    change(session, job, to, actor=actor, reason=Reason.USER)
    plan_after_commit(session)
    return job


def resume(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Put a paused job back in the queue. It continues from its last checkpoint.

    Raises:
        NotFound: no such job.
        Conflict: the job is not paused, or none of its checkpoints is on disk.
    """
    job, needed = _lock_with_needed(session, job_id)
    _must_not_have_ended(job)
    if job.status is JobStatus.PAUSING:
        raise Conflict(f"Job {job_id} is still being paused; resume it once it is paused.")
    if job.status is not JobStatus.PAUSED:
        raise Conflict(f"Job {job_id} is {job.status}, not paused.")
    _put_in_line(session, job, needed, actor=actor, type="resumed")
    return job


def retry(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """Run a failed or cancelled job again, from its last checkpoint if it has one.

    Raises:
        NotFound: no such job.
        Conflict: the job is not failed or cancelled, a dependency is, or none of its checkpoints is on disk.
    """
    job, needed = _lock_with_needed(session, job_id)
    if job.status not in JobStatus.broken_ones():
        raise Conflict(f"Job {job_id} is {job.status}: only a failed or cancelled job can be retried.")
    job.forgiven, job.result, job.finished_at = job.attempt, None, None
    _put_in_line(session, job, needed, actor=actor, type="retried")
    return job


def edit(session: Session, job_id: UUID, changes: JobChanges, *, actor: str) -> models.Job:
    """Change the name, labels and notes of a job, and the priority of a job that has not ended.

    Raises:
        NotFound: no such job.
        Conflict: a new priority for a job that has ended.
        Invalid: too many labels, or a priority above the highest of the project.
    """
    job = jobs.lock(session, job_id)
    if changes.priority is not None:
        _must_not_have_ended(job)
        if fault := priority_problem(changes.priority, projects.get(session, job.project)):
            raise Invalid("The job was not changed.", (fault,))
        if changes.priority != job.priority:
            _note(session, job, actor, "priority", changes.priority)
            plan_after_commit(session)
    if changes.name is not None and changes.name != job.name:
        _note(session, job, actor, "name", changes.name, f"{job.name} is now {changes.name}")
    if changes.labels is not None and (labels := merged(job.labels, changes.labels)) != job.labels:
        if len(labels) > MAX_LABELS:
            fault = FieldError("labels", f"a job can have at most {MAX_LABELS} labels, not {len(labels)}")
            raise Invalid("The job was not changed.", (fault,))
        text = ", ".join(f"{key}={value}" for key, value in labels.items()) or "none"
        _note(session, job, actor, "labels", labels, text)
    if changes.notes is not None and changes.notes != job.notes:
        job.notes = changes.notes
        events.add(session, job.id, "notes", actor=actor)
    return job


def _note(session: Session, job: models.Job, actor: str, field: str, value: Any, message: str | None = None) -> None:
    """Change a field of a job and of its spec, and record the event."""
    setattr(job, field, value)
    job.spec = {**job.spec, field: value}
    events.add(session, job.id, field, actor=actor, message=message or str(value))


def _lock_with_needed(session: Session, job_id: UUID) -> tuple[models.Job, list[models.Job]]:
    """Lock a job and share-lock its dependencies. Dependencies first: every caller locks in creation order, so this
    cannot deadlock."""
    needed = jobs.lock_shared(session, set(jobs.get(session, job_id).depends_on))
    return jobs.lock(session, job_id), [*needed.values()]


def remove(session: Session, job_id: UUID, *, admin: bool) -> None:
    """Remove a job that has ended.

    Raises:
        NotFound: no such job.
        Conflict: the job has not ended, a study has it, a job that has not ended depends on it, or its slot-hours still
            count for budgets and fair share and the caller is not an `admin` of the service.
    """
    job = jobs.lock(session, job_id)
    if not job.status.final:
        raise Conflict(f"Job {job_id} is {job.status}: cancel it first.")
    if study := studies.with_job(session, job_id):
        raise Conflict(f"Job {job_id} belongs to study {study}: remove the study first.")
    if dependent := jobs.open_dependent(session, job_id):
        raise Conflict(f"Job {dependent} depends on job {job_id}: cancel it first.")
    if not admin and projects.counts(session, job_id, get_settings().fair_share_half_life_hours * HOUR):
        raise Conflict(
            f"Slot-hours of job {job_id} still count for budgets and fair share: only an admin of the service can "
            "remove it."
        )
    janitor.forget(session, job_id)  # with its images, and table by table
    jobs.remove(session, job_id)


def _put_in_line(session: Session, job: models.Job, needed: list[models.Job], *, actor: str, type: str) -> None:
    lost = [one for one in needed if one.status in JobStatus.broken_ones()]
    if lost:
        raise Conflict(f"Job {job.id} depends on job {lost[0].id}, which is {lost[0].status}: retry that job first.")
    rows = checkpoints.of_job(session, job.id)
    if rows and not any(map(artifacts.find_checkpoint, rows)):
        folders = [artifacts.checkpoint_path(one).parent for one in rows]
        raise Conflict(artifacts.missing_checkpoints([one.step for one in rows], folders))
    job.delays, job.not_before = 0, None
    waits = any(one.status is not JobStatus.SUCCEEDED for one in needed)
    change(session, job, JobStatus.WAITING if waits else JobStatus.QUEUED, type=type, actor=actor)
    plan_after_commit(session)


def _must_not_have_ended(job: models.Job) -> None:
    if job.status.final:
        raise Conflict(f"Job {job.id} has already ended: it is {job.status}.")


def _machine_problems(session: Session, resources: Resources) -> list[FieldError]:
    gpus, machines = resources.gpus, resources.machines
    size = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "a CPU slot"
    if gpus > (largest := workers.largest(session) if gpus else 0):
        most = f"the largest machine has {largest}" if largest else "no machine has a GPU: set gpus to 0"
        return [FieldError("resources.gpus", f"{size} requested, but {most}")]
    if machines > 1 and machines > (count := workers.count_with(session, gpus)):
        text = f"{count} machine{' has' if count == 1 else 's have'} {size}, not {machines}: lower machines or gpus"
        return [FieldError("resources.machines", text)]
    return []


def _function_problems(session: Session, spec: AnySpec) -> list[FieldError]:
    """Return the functions of users if no machine can run them."""
    functions = [index for index, reward in enumerate(spec.rewards) if python_rewards([reward])]
    if not functions or workers.any_runs_functions(session):
        return []
    text = "no machine can run functions of users: ask the administrator to install bubblewrap on the workers"
    return [FieldError(f"rewards.{index}", text) for index in functions]


def _check_room(session: Session, project: models.Project) -> None:
    if project.max_queued is not None and projects.count_open(session, project.slug) >= project.max_queued:
        raise QuotaExceeded(f"Project {project.slug} has reached its limit of {project.max_queued} waiting jobs.")
