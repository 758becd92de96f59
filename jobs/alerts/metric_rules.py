"""Evaluates the alert rules of a project on the metrics of a job, in the transaction that ships them.

The counts of a rule are in the memory of the shipping process, so that a step costs no reads. They are built from the
metrics in the database: for a new attempt, after a rewind, and for a new or changed rule. So steps that were taken back
never count. A rule that is new to a job fires at the next value at the earliest.
"""

from collections.abc import Collection, Mapping, Sequence
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
        self.name, self.settings, self.firing = rule.name, _settings(rule), firing
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


def _settings(rule: models.AlertRule) -> tuple[Any, ...]:
    return rule.condition, rule.labels, rule.job_names


class MetricRules:
    """The rules of one job in one process. After a transaction that failed, call `forget`."""

    def __init__(self, job_id: UUID, actor: str) -> None:
        self._job_id, self._actor = job_id, actor
        self._watches: dict[UUID, _RuleWatch] | None = None  # None: no step was evaluated yet

    def forget(self) -> None:
        """Build the counts again at the next step: the steps in the database have changed."""
        self._watches = None

    def observe(self, session: Session, job: models.Job, rows: Sequence[tuple[int, datetime, dict[str, Any]]]) -> None:
        """Evaluate new rows of (step, time, values), before they are stored. `job`: locked."""
        if not rows:
            return
        known = alert_rules.on_metrics(session, job.project)
        rules = [rule for rule in known if applies(rule, job.name, job.labels)]
        if self._watches is None:
            self._watches = {}
            self._end(session, job, {rule.name for rule in known} - {rule.name for rule in rules})
        watches = self._watches
        self._drop_others(session, job, watches, rules)
        for rule in rules:
            if rule.id not in watches:
                watches[rule.id] = self._built(session, rule)
        for step, _, values in rows:
            for watch in watches.values():
                if alert := watch.observe(step, values):
                    events.add_step_alert(session, self._job_id, alert, actor=self._actor)

    def _drop_others(
        self, session: Session, job: models.Job, watches: dict[UUID, _RuleWatch], rules: Sequence[models.AlertRule]
    ) -> None:
        """Forget rules that were changed, and those that no longer concern the job, whose alerts are then over."""
        present = {rule.id: rule for rule in rules}
        for id, watch in list(watches.items()):
            if id in present and _settings(present[id]) == watch.settings:
                continue
            del watches[id]
            if id not in present:
                self._end(session, job, {watch.name})

    def _end(self, session: Session, job: models.Job, names: Collection[str]) -> None:
        """End the alerts of these rules, which do not concern the job."""
        for name in events.firing(session, [job.id])[job.id] if names else ():
            if name in names:
                clear(session, job, name, actor=self._actor, message=NO_LONGER)

    def _built(self, session: Session, rule: models.AlertRule) -> _RuleWatch:
        watch = _RuleWatch(rule, firing=rule.name in events.firing(session, [self._job_id])[self._job_id])
        for step, value in metrics.last_values(session, self._job_id, watch.metric, watch.values.remembered):
            watch.values.observe(step, float(value))
        return watch
