"""Results of jobs that look at a model: audits, what-ifs and bisections."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from calibrl.schemas import Audit, Bisection, JobKind, JobStatus, WhatIf
from jobs import models
from jobs.errors import Conflict
from jobs.specs.kind_names import KIND_NAMES

R = TypeVar("R", bound=BaseModel)


def audit(job: models.Job) -> Audit:
    """Return the result of a succeeded audit.

    Raises:
        Conflict: the job is no audit, or has not succeeded.
    """
    return _result(job, "audit", Audit, "Submit a job of kind audit with the model and the data.")


def what_if(job: models.Job) -> WhatIf:
    """Return the result of a succeeded what-if.

    Raises:
        Conflict: the job is no what-if, or has not succeeded.
    """
    return _result(job, "what_if", WhatIf, "Submit a what-if of a training first.")


def bisection(job: models.Job) -> Bisection:
    """Return the result of a succeeded bisection.

    Raises:
        Conflict: the job is no bisection, or has not succeeded.
    """
    return _result(job, "bisect", Bisection, "Submit a bisection of a training first.")


def _result(job: models.Job, kind: JobKind, form: type[R], remedy: str) -> R:
    if job.kind != kind:
        raise Conflict(f"Job {job.id} is {KIND_NAMES[job.kind]}. {remedy}")
    if job.status is not JobStatus.SUCCEEDED:
        why = "ended without a result" if job.status.final else "has not ended"
        raise Conflict(f"Job {job.id} {why}: it is {job.status}.")
    try:
        return form.model_validate(job.result)
    except ValidationError as error:
        raise Conflict(f"Job {job.id} has a result in a format that this version does not know.") from error
