"""Alert rules of projects."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response
from sqlalchemy.orm import Session

from api import preconditions
from api.deps import CurrentCaller, Db
from api.examples import ALERT_RULES, CHANGED_ALERT_RULES
from api.idempotency import IdempotentRoute
from api.preconditions import IfMatch
from calibrl.schemas import AlertRule, AlertRuleSettings, NewAlertRule, Page, Role, Slug
from jobs import models
from jobs.access.callers import Caller
from jobs.alerts import matching
from jobs.repository import alert_rules as rows

router = APIRouter(prefix="/alert-rules", tags=["alert rules"], route_class=IdempotentRoute)


@router.get("")
def list_alert_rules(
    session: Db,
    caller: CurrentCaller,
    project: Annotated[Slug | None, Query(description="Only rules of this project.")] = None,
) -> Page[AlertRule]:
    """List the alert rules of your projects, by project and name."""
    if project is not None:
        caller.need(project, Role.VIEWER)
    found = rows.of_projects(session, caller.projects if project is None else [project])
    return Page(data=[AlertRule.model_validate(row) for row in found], has_more=False)


@router.post("", status_code=201)
def add_alert_rule(
    new: Annotated[NewAlertRule, Body(openapi_examples=ALERT_RULES)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
) -> AlertRule:
    """Add an alert rule to a project; for the project's admins."""
    caller.need_named(new.project, Role.ADMIN)
    row = rows.add(session, new.model_dump(), user=caller.user)
    response.headers["Location"] = f"/v1/alert-rules/{row.id}"
    rule = _tagged(row, response)
    caller.changed(row.id, None, rule)
    return rule


@router.get("/{rule_id}")
def read_alert_rule(rule_id: UUID, session: Db, caller: CurrentCaller, response: Response) -> AlertRule:
    """Return one alert rule."""
    return _tagged(_seen(session, caller, rule_id), response)


@router.put("/{rule_id}")
def put_alert_rule(
    rule_id: UUID,
    settings: Annotated[AlertRuleSettings, Body(openapi_examples=CHANGED_ALERT_RULES)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
    if_match: IfMatch = None,
) -> AlertRule:
    """Change an alert rule; omitted fields get their defaults. For the project's admins. If anything differs, its
    alerts in jobs that have not ended are over, and the changed rule fires again if its condition holds.
    """
    row = _locked(session, caller, rule_id)
    before = AlertRule.model_validate(row)
    preconditions.check(if_match, before, preconditions.EDITED["alert rule"])
    values = settings.model_dump()
    if values != before.model_dump(include=set(values)):
        for field, value in values.items():
            setattr(row, field, value)
        matching.end_alerts(session, row, actor=caller.user, message="the rule was changed")
    rule = _tagged(row, response)
    caller.changed(rule_id, before, rule)
    return rule


@router.delete("/{rule_id}", status_code=204)
def remove_alert_rule(rule_id: UUID, session: Db, caller: CurrentCaller) -> None:
    """Remove an alert rule; for the project's admins. Its alerts stay in the events of jobs."""
    row = _locked(session, caller, rule_id)
    caller.changed(rule_id, AlertRule.model_validate(row))
    matching.end_alerts(session, row, actor=caller.user, message="the rule was removed")
    rows.remove(session, row)


def _seen(session: Session, caller: Caller, rule_id: UUID) -> models.AlertRule:
    row = rows.get(session, rule_id)
    if not caller.sees(row.project):
        raise rows.no_such(rule_id)
    return row


def _locked(session: Session, caller: Caller, rule_id: UUID) -> models.AlertRule:
    caller.need(_seen(session, caller, rule_id).project, Role.ADMIN)
    return rows.lock(session, rule_id)


def _tagged(row: models.AlertRule, response: Response) -> AlertRule:
    rule = AlertRule.model_validate(row)
    preconditions.set_tag(response, rule, preconditions.EDITED["alert rule"])
    return rule
