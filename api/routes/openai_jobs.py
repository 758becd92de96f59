"""Training jobs in the form of OpenAI's fine-tuning API."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api import openai
from api.deps import MAX_ID, CurrentCaller, Db, read
from api.examples import FINE_TUNING_JOBS
from api.idempotency import IdempotentRoute, look
from api.openai import after_id, listed, no_start
from api.validation_errors import field_errors
from calibrl.schemas import MAX_STEP, Dataset, JobStatus, Role, TrainSpec
from calibrl.schemas.openai import FineTuningCheckpoint, FineTuningEvent, FineTuningJob, NewFineTuningJob, OpenAIList
from jobs import lifecycle, models
from jobs.access.callers import Caller
from jobs.errors import FieldError, Invalid, NotFound
from jobs.openai import objects, requests
from jobs.openai.names import not_found, origin, uuid_of
from jobs.repository import checkpoints, datasets, jobs, openai_jobs, queue
from jobs.specs import hub_commits

router = APIRouter(prefix="/fine_tuning/jobs", tags=["OpenAI"], responses=openai.RESPONSES, route_class=IdempotentRoute)
Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of items per page.")]
After = Annotated[str | None, Query(description="Id of the last item of the previous page.")]
_FILTER = re.compile(r"metadata\[(.{1,64})\]")
_TOLD = re.compile(r"ft(event|metrics)-([0-9]{1,18})")


def _existing_job(fine_tuning_job_id: str, session: Db, caller: CurrentCaller) -> models.Job:
    try:
        job = jobs.get(session, uuid_of("ftjob", fine_tuning_job_id))
    except NotFound:
        raise not_found("ftjob", fine_tuning_job_id) from None
    if job.kind != openai_jobs.TRAIN or not caller.sees(job.project):
        raise not_found("ftjob", fine_tuning_job_id)
    return job


ExistingJob = Annotated[models.Job, Depends(_existing_job, scope="function")]


def _own_job(job: ExistingJob, caller: CurrentCaller) -> models.Job:
    caller.need(job.project, Role.MEMBER)
    return job


WritableJob = Annotated[models.Job, Depends(_own_job, scope="function")]


@contextmanager
def _errors_in_request(new: NewFineTuningJob) -> Iterator[None]:
    """Name the fields of the request in the errors of its spec."""
    try:
        yield
    except Invalid as error:
        raise _refused(*requests.in_request(new, error.errors)) from None


async def _spec(
    request: Request,
    new: Annotated[NewFineTuningJob, Body(openapi_examples=FINE_TUNING_JOBS)],
    caller: CurrentCaller,
    project: openai.Project = None,
) -> TrainSpec:
    def parsed(session: Session) -> TrainSpec:
        look(request, session)  # an answered request is answered again even if its files or the hub are away
        return _parsed(session, caller, new, project)

    spec = await read(request, parsed)
    with _errors_in_request(new):  # the hub is asked without a session
        return await run_in_threadpool(hub_commits.pinned, spec)


@router.post("")
def create_fine_tuning_job(
    new: Annotated[NewFineTuningJob, Body(openapi_examples=FINE_TUNING_JOBS)],
    spec: Annotated[TrainSpec, Depends(_spec)],
    session: Db,
    caller: CurrentCaller,
) -> FineTuningJob:
    """Fine-tune a model. `supervised` learns from the assistant's last messages. `reinforcement` learns from the
    grader's scores of sampled answers; if a row ends with an assistant message, that message is the expert (CalibRL).
    """
    with _errors_in_request(new):
        job = lifecycle.submit(session, spec, actor=caller.user, visible_projects=caller.projects)
    return _shown(session, [job])[0]


def _parsed(session: Session, caller: Caller, new: NewFineTuningJob, project: str | None) -> TrainSpec:
    """Return the spec of a request."""
    openai.visible(session, caller, project)
    training = _file(session, caller, "training_file", new.training_file)
    validation = _file(session, caller, "validation_file", new.validation_file) if new.validation_file else None
    caller.need(training.project, Role.MEMBER)
    if project not in (None, training.project):
        raise _refused(FieldError("training_file", f"there is no file {new.training_file!r} in project {project}"))
    spec = requests.spec_of(new, training, validation, _parent_spec(session, caller, new.model))
    try:
        return TrainSpec.model_validate(spec)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise _refused(*requests.in_request(new, field_errors(faults, spec))) from None


@router.get("")
def list_fine_tuning_jobs(
    request: Request,
    session: Db,
    caller: CurrentCaller,
    project: openai.Project = None,
    after: After = None,
    limit: Limit = 20,
) -> OpenAIList[FineTuningJob]:
    """List the training jobs of your projects, or of the project in the header, newest first. Parameters
    `metadata[KEY]=VALUE` select jobs with these labels, `metadata=null` jobs without labels.
    """
    slug = openai.visible(session, caller, project)
    labels, unlabelled = _labels(request)
    job_rows = openai_jobs.page(
        session,
        visible_projects=caller.projects,
        project=slug,
        labels=labels,
        unlabelled=unlabelled,
        after=after_id("ftjob", after),
        limit=limit + 1,
    )
    return listed(_shown(session, job_rows[:limit]), len(job_rows) > limit)


@router.get("/{fine_tuning_job_id}")
def read_fine_tuning_job(session: Db, job: ExistingJob) -> FineTuningJob:
    """Return one job. Waiting, pausing and paused jobs are shown as `queued`; a job being cancelled as `running`."""
    return _shown(session, [job])[0]


@router.post("/{fine_tuning_job_id}/cancel")
def cancel_fine_tuning_job(session: Db, job: WritableJob, caller: CurrentCaller) -> FineTuningJob:
    """Cancel a job."""
    return _shown(session, [lifecycle.cancel(session, job.id, actor=caller.user)])[0]


@router.post("/{fine_tuning_job_id}/pause")
def pause_fine_tuning_job(session: Db, job: WritableJob, caller: CurrentCaller) -> FineTuningJob:
    """Pause a job; a running job saves a checkpoint first."""
    return _shown(session, [lifecycle.pause(session, job.id, actor=caller.user)])[0]


@router.post("/{fine_tuning_job_id}/resume")
def resume_fine_tuning_job(session: Db, job: WritableJob, caller: CurrentCaller) -> FineTuningJob:
    """Return a paused job to the queue."""
    return _shown(session, [lifecycle.resume(session, job.id, actor=caller.user)])[0]


@router.get("/{fine_tuning_job_id}/events")
def list_fine_tuning_events(
    session: Db, job: ExistingJob, after: After = None, limit: Limit = 20
) -> OpenAIList[FineTuningEvent]:
    """List the events of a job and the metrics of its steps, newest first."""
    rows = openai_jobs.events_and_metrics(session, job.id, after=_event(after), limit=limit + 1)
    return listed([objects.event_object(one, job.steps_total) for one in rows[:limit]], len(rows) > limit)


@router.get("/{fine_tuning_job_id}/checkpoints")
def list_fine_tuning_checkpoints(
    session: Db, job: ExistingJob, after: After = None, limit: Limit = 10
) -> OpenAIList[FineTuningCheckpoint]:
    """List the checkpoints that a job keeps, newest first."""
    kept = [objects.checkpoint_object(job, one) for one in reversed(checkpoints.of_job(session, job.id))]
    begin = 0
    if after is not None:
        begin = next((place for place, one in enumerate(kept, 1) if one.id == after), -1)
    if begin < 0:
        raise no_start(f"the job keeps no checkpoint {after!r}")
    return listed(kept[begin : begin + limit], len(kept) > begin + limit)


def _shown(session: Session, job_rows: Sequence[models.Job]) -> list[FineTuningJob]:
    session.flush()
    named = {id for job in job_rows for id in objects.dataset_ids(job)}
    rows = datasets.row_counts(session, named) if named else {}
    running = any(job.status is JobStatus.RUNNING for job in job_rows)
    left = queue.seconds_left(session) if running else {}
    return [objects.job_object(job, rows, left.get(job.id)) for job in job_rows]


def _file(session: Session, caller: Caller, field: Literal["training_file", "validation_file"], name: str) -> Dataset:
    try:
        dataset = Dataset.model_validate(datasets.get(session, uuid_of("file", name), caller.projects))
    except NotFound:
        raise _refused(FieldError(field, f"there is no file {name!r}")) from None
    if dataset.hub is not None:
        raise _refused(FieldError(field, f"{name!r} is a dataset's name on the hub: upload a file"))
    return dataset


def _parent_spec(session: Session, caller: Caller, model: str) -> dict[str, Any] | None:
    """Return the spec of the job that trained the model; None if no job did."""
    named = origin(model)
    if named is None:
        return None
    job_id, checkpoint = named
    try:
        job = jobs.get(session, job_id)
        if not caller.sees(job.project) or job.kind != openai_jobs.TRAIN:
            raise jobs.no_such(job_id)
        if isinstance(checkpoint, int):
            checkpoints.get(session, job_id, checkpoint)
    except NotFound as error:
        raise _refused(FieldError("model", error.detail)) from None
    spec: dict[str, Any] = job.spec
    return spec


def _labels(request: Request) -> tuple[dict[str, str], bool]:
    """Return the labels in the `metadata[key]` parameters, and True if `metadata=null` asks for jobs without labels."""
    labels, unlabelled = dict[str, str](), False
    for name, value in request.query_params.multi_items():
        if name == "metadata" and value == "null":
            unlabelled = True
        elif match := _FILTER.fullmatch(name):
            labels[match[1]] = value
        elif name.startswith("metadata"):
            raise _refused(FieldError("metadata", "must be metadata[key]=value, or metadata=null"))
    if labels and unlabelled:
        raise _refused(FieldError("metadata", "name labels, or null: not both"))
    return labels, unlabelled


def _event(after: str | None) -> tuple[Literal["event", "step"], int] | None:
    if after is None:
        return None
    match = _TOLD.fullmatch(after)
    if match is None:
        raise no_start(f"there is no event {after!r}")
    number = int(match[2])
    if match[1] == "event":
        return "event", min(number, MAX_ID)
    return "step", min(number, MAX_STEP)


def _refused(*faults: FieldError) -> Invalid:
    return Invalid("The request was not accepted.", faults)
