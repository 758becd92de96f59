"""Results of what-ifs."""

from pydantic import ValidationError

from calibrl.schemas import JobStatus, WhatIf
from jobs import models
from jobs.errors import Conflict
from jobs.specs.kind_names import KIND_NAMES


def what_if(job: models.Job) -> WhatIf:
    """Return the result of a succeeded what-if.

    Raises:
        Conflict: the job is no what-if, or has not succeeded.
    """
    if job.kind != "what_if":
        raise Conflict(f"Job {job.id} is {KIND_NAMES[job.kind]}. Submit a what-if of a training first.")
    if job.status is not JobStatus.SUCCEEDED:
        why = "ended without a result" if job.status.final else "has not ended"
        raise Conflict(f"Job {job.id} {why}: it is {job.status}.")
    try:
        return WhatIf.model_validate(job.result)
    except ValidationError as error:
        raise Conflict(f"Job {job.id} has a result in a format that this version does not know.") from error
