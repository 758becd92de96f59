"""Health rules and alert rules: which fired, when, on which values, and the recommended action."""

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from calibrl.schemas import Event, HealthAlert, Job
from calibrl_core.health import RULES
from dashboard import states
from dashboard.markup import chip, escape, heading, moment
from dashboard.palette import CORRECT, RARENESS, WRONG
from dashboard.panels.common import has_rollouts, live_panel
from dashboard.panels.panel import Panel
from dashboard.reads import live, service
from dashboard.views.alerts import TEXTS, title_of
from dashboard.views.new_job_page import submit_and_open

OF_UPDATES = {rule.name for rule in RULES if rule.caused_by_update}


class AlertEvent(NamedTuple):
    """A `health` event with its alert."""

    event: Event
    alert: HealthAlert


def _history(change: AlertEvent) -> str:
    event, alert = change
    title = "Fired" if alert.state == "fired" else "Resolved"
    # The message of an alert rule begins with the name of a metric.
    text = alert.message[:1].upper() + alert.message[1:] if alert.rule in TEXTS else alert.message
    advice = (
        f'<div style="margin-top:.2rem"><b>Recommended action.</b> {escape(alert.suggestion)}</div>'
        if alert.suggestion
        else ""
    )
    return (
        '<div style="margin-top:.6rem;padding-left:.7rem;border-left:3px solid rgba(125,131,140,.4);'
        'overflow-wrap:anywhere">'
        f"<b>{title} at step {alert.step}</b> "
        f'<span style="opacity:.75">{escape(moment(event.ts))}</span><br>'
        f"{escape(text)}.{advice}</div>"
    )


def _state(changes: Sequence[AlertEvent]) -> str:
    if not changes:
        return chip("✓ OK", CORRECT)
    return chip("✕ Firing", WRONG) if _fires(changes) else chip("✓ Resolved", CORRECT)


def _fires(changes: Sequence[AlertEvent]) -> bool:
    return bool(changes) and changes[-1].alert.state == "fired"


def _rule(job: Job, rule: str, changes: Sequence[AlertEvent]) -> None:
    title, hint = title_of(rule), TEXTS.get(rule, ("", ""))[1]
    with st.container(border=True, key=f"card-rule-{rule}"):
        st.html(
            '<div style="display:flex;justify-content:space-between;gap:.8rem;align-items:start">'
            f"<div>{heading(title, hint)}</div>{_state(changes)}</div>" + "".join(map(_history, reversed(changes)))
        )
        if changes and rule in OF_UPDATES and service.me().may_change(job.project):
            help = "Start a job that probes the checkpoints to find the update that caused this alert."
            if st.button("Where did it go wrong?", icon=":material/troubleshoot:", key=f"bisect-{rule}", help=help):
                submit_and_open(lambda: service.client().bisect(job.id, rule=rule))


def _panel(job: Job) -> None:
    history = live.events(job.id)
    with states.tolerated():
        history.refresh()
    by_rule: dict[str, list[AlertEvent]] = {rule: [] for rule in TEXTS}
    for event in history.events:
        if event.alert:
            by_rule.setdefault(event.alert.rule, []).append(AlertEvent(event, event.alert))
    firing = sum(map(_fires, by_rule.values()))
    st.caption(_summary(job, firing))
    for rule, changes in sorted(by_rule.items(), key=lambda item: _urgency(item[1])):
        _rule(job, rule, changes)
    _warnings([event for event in history.events if event.type == "warning"])


def _summary(job: Job, firing: int) -> str:
    if not has_rollouts(job):
        return "The rules check rollouts. Supervised fine-tuning has none."
    alerts = f"{firing or 'No'} active alert{'s' if firing != 1 else ''}"
    when = " at the end" if job.status.final else ""
    limits = (
        "The limits are under `health` in the spec. `no_verdicts` and the rules in `health.pause_on` pause the job. "
        "Alert rules of the project are shown once they have fired."
    )
    return f"{alerts}{when}. {limits}"


def _urgency(changes: Sequence[AlertEvent]) -> int:
    """The order of the rules: firing, resolved, OK."""
    return 2 if not changes else 0 if _fires(changes) else 1


def _warnings(events: list[Event]) -> None:
    if events:
        rows = "".join(
            f'<div style="margin:.4rem 0;overflow-wrap:anywhere">{chip("! warning", RARENESS)} '
            f'<span style="opacity:.75">{escape(moment(event.ts))}</span> {escape(event.message or "")}</div>'
            for event in reversed(events)
        )
        st.html(heading("Other warnings", "Reported by the service") + rows)


draw = live_panel(_panel)


PANELS = (Panel("Health", draw, 80),)
