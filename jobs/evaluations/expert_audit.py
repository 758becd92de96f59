"""Results of audits of experts."""

from pydantic import ValidationError

from calibrl.schemas import Audit, JobStatus
from jobs import models
from jobs.errors import Conflict
from jobs.specs.kind_names import KIND_NAMES


def audit(job: models.Job) -> Audit:
    """Return the result of a succeeded audit.

    Raises:
        Conflict: the job is no audit, or has not succeeded.
    """
    if job.kind != "audit":
        raise Conflict(
            f"Job {job.id} is {KIND_NAMES[job.kind]}. Submit a job of kind audit with the model and the data."
        )
    if job.status is not JobStatus.SUCCEEDED:
        why = "ended without a result" if job.status.final else "has not ended"
        raise Conflict(f"Job {job.id} {why}: it is {job.status}.")
    try:
        return Audit.model_validate(job.result)
    except ValidationError as error:
        raise Conflict(f"Job {job.id} has a result in a format that this version does not know.") from error
