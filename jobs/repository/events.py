"""Events of jobs."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from calibrl.schemas import HealthAlert, JobStatus, Reason
from calibrl.schemas.events import surviving
from calibrl_core.report import health_sentence
from jobs.models import Event, Job
from jobs.repository import feed, webhooks

CHECKED = "checked"  # type of the event with the result of a model's check at load
HEALTH = "health"  # type of the events of health rules
SENT_PER_HOUR = 10  # messages of one rule in one job: a value that hovers at a limit must not flood the receivers
NEWEST_JOBS = 200  # of a project, among which a check is looked for


def add(
    session: Session,
    job_id: UUID,
    type: str,
    *,
    actor: str,
    status: JobStatus | None = None,
    reason: Reason | None = None,
    message: str | None = None,
    alert: HealthAlert | None = None,
    quiet: bool = False,
) -> None:
    """Record an event now, and queue messages for the webhooks that receive it, unless it is quiet."""
    fields = alert and alert.model_dump()
    event = Event(job_id=job_id, type=type, actor=actor, status=status, reason=reason, message=message, alert=fields)
    session.add(event)
    feed.changes(session, job_id).events.append(event)
    if quiet:
        return
    data: dict[str, Any] = {
        "job_id": str(job_id),
        "status": status,
        "reason": reason,
        "actor": actor,
        "message": message,
    }
    if fields:
        data["alert"] = fields
    webhooks.enqueue_deliveries(session, job_id, f"job.{status or type}", data)


def add_alert(session: Session, job_id: UUID, alert: HealthAlert, *, actor: str, quiet: bool = False) -> None:
    """Record that a rule fired or cleared."""
    message = health_sentence(alert.model_dump())
    add(session, job_id, HEALTH, actor=actor, message=message, alert=alert, quiet=quiet)


def add_step_alert(session: Session, job_id: UUID, alert: HealthAlert, *, actor: str) -> None:
    """Record that a rule fired or cleared at a step. The event is quiet if a run that went back repeats the alert, or
    after SENT_PER_HOUR alerts of the rule in the last hour."""
    known = {"rule": alert.rule, "state": alert.state, "step": alert.step}
    repeated = exists().where(Event.job_id == job_id, Event.alert.contains(known))
    recent = select(func.count()).where(Event.job_id == job_id, Event.alert.contains({"rule": alert.rule}))
    recent = recent.where(Event.ts > func.now() - timedelta(hours=1))
    quiet = select(or_(repeated, recent.scalar_subquery() >= SENT_PER_HOUR))
    add_alert(session, job_id, alert, actor=actor, quiet=bool(session.scalar(quiet)))


def take_back_alerts(session: Session, job_id: UUID, to_step: int, *, actor: str) -> None:
    """Return every rule to its state at a step to which the run goes back. These events are quiet: if the run repeats
    the steps as before, the receivers of the first messages are right again."""
    known = alerts(session, job_id)
    now = {alert.rule: alert for alert in known}
    then = {alert.rule: alert for alert in surviving(known) if alert.step <= to_step}
    for rule, last in now.items():
        if last.step <= to_step:
            continue
        # The step of the alert that counts again: a bisection explains the step at which a rule fired.
        state, step = (then[rule].state, then[rule].step) if rule in then else ("cleared", to_step)
        message = f"the run went back from step {last.step} to step {to_step}"
        back = HealthAlert(rule=rule, state=state, step=step, message=message, suggestion="")
        add_alert(session, job_id, back, actor=actor, quiet=True)


def firing(session: Session, ids: Collection[UUID]) -> dict[UUID, list[str]]:
    """Return the rules that fire in each of these jobs."""
    return dict(session.execute(select(Job.id, Job.alerts).where(Job.id.in_(ids))).all()) if ids else {}


def page(session: Session, job_id: UUID, *, after: int, limit: int) -> list[Event]:
    """Return the events of a job after the id `after`, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit)
    return list(session.scalars(query))


def alerts(session: Session, job_id: UUID) -> list[HealthAlert]:
    """Return the alerts of all rules in a job, in order."""
    query = select(Event.alert).where(Event.job_id == job_id, Event.alert.is_not(None)).order_by(Event.id)
    return [HealthAlert.model_validate(alert) for alert in session.scalars(query)]


def last_check(session: Session, project: str, model: dict[str, Any]) -> Event | None:
    """Return the newest check of a model of a spec, among the newest training jobs of a project."""
    newest = select(Job.id, Job.spec).where(Job.project == project, Job.kind == "train")
    jobs = newest.order_by(Job.created_at.desc(), Job.id.desc()).limit(NEWEST_JOBS).subquery()
    query = select(Event).join(jobs, jobs.c.id == Event.job_id)
    query = query.where(Event.type == CHECKED, jobs.c.spec["model"] == model)
    return session.scalars(query.order_by(Event.id.desc()).limit(1)).first()
