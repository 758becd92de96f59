"""Steps that a stop without a checkpoint loses."""

from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from jobs import models
from jobs.repository import attempts, events

EVENT = "steps_lost"
GOES_ON = (JobStatus.QUEUED, JobStatus.PAUSED)  # where the next attempt runs the lost steps again


def note_lost_steps(session: Session, job: models.Job, actor: str) -> str | None:
    """Record the steps of a locked training job after its last checkpoint, before its lease ends. Return them as text
    for people, or None if no step is lost."""
    lost = attempts.set_lost_steps(session, job) if job.kind == "train" else 0
    if not lost:
        return None
    message = f"stopped without a checkpoint: {lost} step{'s' if lost > 1 else ''} lost"
    events.add(session, job.id, EVENT, actor=actor, message=message)
    return message
