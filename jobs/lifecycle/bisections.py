"""The spec of a bisection, made from the training whose alert it explains."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import BisectionRequest
from calibrl.schemas.alert_rules import HEALTH_RULES
from calibrl.schemas.events import surviving
from calibrl_core.bisection.settings import MOST_KEPT
from jobs.errors import Conflict
from jobs.lifecycle.what_ifs import in_one_process
from jobs.repository import checkpoints, events, jobs
from jobs.specs.kind_names import KIND_NAMES

NAME_LENGTH = 109  # maximum length before -bisection is appended


def bisection_spec(session: Session, job_id: UUID, request: BisectionRequest) -> dict[str, Any]:
    """Return the spec of a bisection of a training, to be checked like any other.

    Raises:
        NotFound: no such job.
        Conflict: the job is no training, keeps fewer than two checkpoints, or the rule has not fired.
    """
    job = jobs.get(session, job_id)
    if job.kind != "train":
        raise Conflict(f"Job {job_id} is {KIND_NAMES[job.kind]}: only the checkpoints of a training can be bisected.")
    known = [alert for alert in surviving(events.alerts(session, job_id)) if alert.rule in HEALTH_RULES]
    fired = sorted((alert for alert in known if alert.state == "fired"), key=lambda alert: alert.step)
    chosen = [alert for alert in fired if request.rule in (None, alert.rule)]
    if not chosen:
        names = ", ".join(sorted({alert.rule for alert in fired})) or "none"
        rule = f"The rule {request.rule}" if request.rule else "A health rule"
        raise Conflict(f"{rule} has not fired in job {job_id} (fired: {names}), so there is nothing to explain.")
    kept = [row.step for row in checkpoints.of_job(session, job_id)][-MOST_KEPT:]
    if len(kept) < 2:
        raise Conflict(
            f"Job {job_id} keeps {len(kept) or 'no'} checkpoint{'s' if not kept else ''}, and a bisection needs two: "
            "run it with a higher checkpoints.keep_last, or fork it before the alert."
        )
    return {
        **in_one_process(job.spec),
        "kind": "bisect",
        "name": request.name or f"{job.name[:NAME_LENGTH]}-bisection",
        "kept": [{"from_job": str(job_id), "checkpoint": step} for step in kept],
        "rule": chosen[-1].rule,
        "fired_step": chosen[-1].step,
    }
