"""Evaluates the alert rules of a project on the metrics of a job, in the transaction that ships them.

The counts of a rule are in the memory of the shipping process, so that a step costs no reads. They are built from the
metrics in the database: for a new attempt, after a rewind, and for a new or changed rule. So steps that were taken back
never count. A rule that is new to a job fires at the next value at the earliest.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from calibrl.schemas import HealthAlert
from calibrl.schemas.alert_rules import MetricCondition
from jobs import models
from jobs.alerts.conditions import ConditionWatch
from jobs.alerts.matching import NO_LONGER, applies, clear
from jobs.repository import alert_rules, events, metrics

_conditions: TypeAdapter[MetricCondition] = TypeAdapter(MetricCondition)


class _RuleWatch:
    """A rule in a job."""

    def __init__(self, rule: models.AlertRule, *, firing: bool) -> None:
        self.name, self.condition, self.firing = rule.name, rule.condition, firing
        condition = _conditions.validate_python(rule.condition)
        self.metric, self.values = condition.metric, ConditionWatch(condition)

    def observe(self, step: int, values: Mapping[str, Any]) -> HealthAlert | None:
        """Record the metrics of a step. Return the alert if the rule fires or clears."""
        if self.metric not in values:
            return None
        holds = self.values.observe(step, float(values[self.metric]))
        if holds is None or holds is self.firing:
            return None
        self.firing = holds
        text = self.values.text(holds)
        return HealthAlert(
            rule=self.name, state="fired" if holds else "cleared", step=step, message=text, suggestion=""
        )


class MetricRules:
    """The rules of one job in one process. After a transaction that failed, call `forget`."""

    def __init__(self, job_id: UUID, actor: str) -> None:
        self._job_id, self._actor = job_id, actor
        self._watches: dict[UUID, _RuleWatch] = {}

    def forget(self) -> None:
        """Build the counts again at the next step: the steps in the database have changed."""
        self._watches = {}

    def observe(self, session: Session, job: models.Job, rows: Sequence[tuple[int, datetime, dict[str, Any]]]) -> None:
        """Evaluate new rows of (step, time, values), before they are stored. `job`: locked."""
        if not rows:
            return
        rules = [rule for rule in alert_rules.on_metrics(session, job.project) if applies(rule, job.name, job.labels)]
        self._drop_others(session, job, rules)
        for rule in rules:
            if rule.id not in self._watches:
                self._watches[rule.id] = self._built(session, rule)
        for step, _, values in rows:
            for watch in self._watches.values():
                if alert := watch.observe(step, values):
                    events.add_step_alert(session, self._job_id, alert, actor=self._actor)

    def _drop_others(self, session: Session, job: models.Job, rules: Sequence[models.AlertRule]) -> None:
        """Forget rules that were changed, and those that no longer concern the job, whose alerts are then over."""
        present = {rule.id: rule for rule in rules}
        for id, watch in list(self._watches.items()):
            if id in present and present[id].condition == watch.condition:
                continue
            del self._watches[id]
            if id not in present and watch.name in events.firing(session, [job.id])[job.id]:
                clear(session, job, watch.name, actor=self._actor, message=NO_LONGER)

    def _built(self, session: Session, rule: models.AlertRule) -> _RuleWatch:
        watch = _RuleWatch(rule, firing=rule.name in events.firing(session, [self._job_id])[self._job_id])
        for step, value in metrics.last_values(session, self._job_id, watch.metric, watch.values.remembered):
            watch.values.observe(step, float(value))
        return watch
