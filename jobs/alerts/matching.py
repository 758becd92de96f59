"""Which jobs an alert rule concerns, and the end of its alerts."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from sqlalchemy.orm import Session

from calibrl.schemas import HealthAlert
from jobs import models
from jobs.repository import alert_rules, events, jobs

NO_LONGER = "the rule no longer concerns this job"


def applies(rule: models.AlertRule, name: str, labels: Mapping[str, str]) -> bool:
    """Return True if the rule concerns a job of its project with this name and these labels."""
    return (rule.job_names is None or fnmatchcase(name, rule.job_names)) and rule.labels.items() <= labels.items()


def clear(session: Session, job: models.Job, rule: str, *, actor: str, message: str) -> None:
    """Record that the alert of a rule in a job is over."""
    alert = HealthAlert(rule=rule, state="cleared", step=job.step, message=message, suggestion="")
    events.add_alert(session, job.id, alert, actor=actor)


def end_alerts(session: Session, rule: models.AlertRule, *, actor: str, message: str) -> None:
    """Record that the alerts of a rule are over in all jobs that have not ended."""
    ids = [pace.job_id for pace in alert_rules.paces(session, rule.project)]
    firing = events.firing(session, ids)
    locked = jobs.lock_existing(session, [id for id in ids if rule.name in firing[id]])
    firing = events.firing(session, [job.id for job in locked])  # an alert may have ended before the lock
    for job in locked:
        if rule.name in firing[job.id] and not job.status.final:
            clear(session, job, rule.name, actor=actor, message=message)
