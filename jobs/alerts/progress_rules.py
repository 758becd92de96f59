"""Evaluates the alert rules on the progress of jobs. The sweep does it: a job without progress ships nothing."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import HealthAlert
from jobs import models
from jobs.alerts.matching import NO_LONGER, applies
from jobs.repository import alert_rules, events, jobs
from jobs.repository.alert_rules import Pace

ACTOR = "scheduler"


def check(session: Session) -> int:
    """Record the alerts of all rules on progress that fire or clear now. Return their number."""
    return sum(_check(session, rule) for rule in alert_rules.on_progress(session))


def _check(session: Session, rule: models.AlertRule) -> int:
    paces = alert_rules.paces(session, rule.project)
    changed = [id for id, _, _ in _changes(session, rule, paces)]
    if not changed:
        return 0
    # A job that another transaction has locked may be shipping a step: the next sweep looks again.
    locked = {job.id: job for job in jobs.lock_existing(session, changed, skip_locked=True)}
    paces = [pace for pace in alert_rules.paces(session, rule.project) if pace.job_id in locked]
    found = list(_changes(session, rule, paces))
    for id, fires, message in found:
        alert = HealthAlert(
            rule=rule.name,
            state="fired" if fires else "cleared",
            step=locked[id].step,
            message=message,
            suggestion="",
        )
        events.add_alert(session, id, alert, actor=ACTOR)
    return len(found)


def _changes(session: Session, rule: models.AlertRule, paces: Sequence[Pace]) -> Iterator[tuple[UUID, bool, str]]:
    """Yield the jobs in which the rule fires (True) or clears now, each with the message."""
    minutes = rule.condition["minutes"]
    firing = events.firing(session, [pace.job_id for pace in paces])
    for id, name, labels, seconds in paces:
        concerned = applies(rule, name, labels)
        stalled = concerned and seconds is not None and seconds >= 60 * minutes
        if stalled is (rule.name in firing[id]):
            continue
        if stalled:
            yield id, True, f"no step for {minutes} minute{'s' if minutes > 1 else ''}"
        elif not concerned:
            yield id, False, NO_LONGER
        else:
            yield id, False, "the job does not run" if seconds is None else "the job progresses"
