"""What the health rules say: which fired, when, on what, and what they suggest."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import streamlit as st

from calibrl.schemas import Event, Job
from dashboard import states
from dashboard.markup import chip, escape, heading, moment
from dashboard.palette import CORRECT, RARENESS, WRONG
from dashboard.panels.common import algorithm, draw_live, waiting
from dashboard.reads import live

RULES = {  # name: title, what it watches
    "entropy_collapse": (
        "Entropy collapse",
        "The policy is certain of nearly every token: groups agree, and nothing new is tried.",
    ),
    "entropy_explosion": ("Entropy explosion", "The policy drifts into noise: entropy many times what it was."),
    "all_truncated": ("All truncated", "Completions do not come to an end, so that hardly any gives an answer."),
    "no_advantage": ("No advantage", "In every group all rewards are equal: no gradient, nothing is learned."),
    "reward_not_accuracy": (
        "Reward without accuracy",
        "The reward rises while right answers become fewer: some term of it is being gamed.",
    ),
}
SENTENCE = re.compile(
    r"(?P<rule>\w+) (?P<state>fired|cleared) at step (?P<step>\d+): (?P<seen>.*?)\.(?: (?P<advice>.*))?", re.DOTALL
)


class Alert(NamedTuple):
    """A rule that fired or cleared."""

    event: Event
    rule: str
    fired: bool
    step: str
    seen: str
    advice: str


def alerts(events: Iterable[Event]) -> list[Alert]:
    """The health rules' events, in order; they are told in a sentence of one form."""
    found = []
    for event in events:
        match = SENTENCE.fullmatch(event.message or "") if event.type == "health" else None
        if match:
            fired = match["state"] == "fired"
            found.append(Alert(event, match["rule"], fired, match["step"], match["seen"], match["advice"] or ""))
    return found


def draw(job: Job) -> None:
    if not waiting(job):
        draw_live(job, _panel)


def _history(alert: Alert) -> str:
    what = "Fired" if alert.fired else "Cleared"
    advice = f'<div style="margin-top:.2rem"><b>What to do.</b> {escape(alert.advice)}</div>' if alert.advice else ""
    return (
        '<div style="margin-top:.6rem;padding-left:.7rem;border-left:3px solid rgba(125,131,140,.4);'
        'overflow-wrap:anywhere">'
        f"<b>{what} at step {alert.step}</b> "
        f'<span style="opacity:.75">{escape(moment(alert.event.ts))}</span><br>'
        f"{escape(alert.seen[:1].upper() + alert.seen[1:])}.{advice}</div>"
    )


def _state(told: list[Alert]) -> str:
    if not told:
        return chip("✓ quiet", CORRECT)
    return chip("✕ fires", WRONG) if told[-1].fired else chip("✓ cleared", CORRECT)


def _rule(rule: str, told: list[Alert]) -> None:
    title, watches = RULES.get(rule, (rule.replace("_", " ").capitalize(), ""))
    with st.container(border=True, key=f"card-rule-{rule}"):
        st.html(
            '<div style="display:flex;justify-content:space-between;gap:.8rem;align-items:start">'
            f"<div>{heading(title, watches)}</div>{_state(told)}</div>" + "".join(map(_history, reversed(told)))
        )


def _panel(job: Job) -> None:
    happened = live.events(job.id)
    with states.tolerated():
        happened.refresh()
    told = alerts(happened.events)
    by_rule = {rule: [alert for alert in told if alert.rule == rule] for rule in [*RULES, *(one.rule for one in told)]}
    firing = sum(bool(of) and of[-1].fired for of in by_rule.values())
    st.caption(_summary(job, firing))
    for rule, of in sorted(by_rule.items(), key=lambda item: _urgency(item[1])):
        _rule(rule, of)
    _warnings([event for event in happened.events if event.type == "warning"])


def _summary(job: Job, firing: int) -> str:
    if algorithm(job) == "sft":
        return "The rules judge rollouts, of which supervised fine-tuning has none."
    when = "When the job ended" if job.status.final else "Just now"
    said = {0: "no rule fired", 1: "one rule fired"}.get(firing, f"{firing} rules fired")
    said = said if job.status.final else said.replace("fired", "fires" if firing < 2 else "fire")
    limits = "Limits are settings, under health in the spec. Alerts are advice, unless health.pause_on names the rule."
    return f"{when} {said}. {limits}"


def _urgency(told: list[Alert]) -> int:
    return 2 if not told else 0 if told[-1].fired else 1


def _warnings(events: list[Event]) -> None:
    if events:
        said = "".join(
            f'<div style="margin:.4rem 0;overflow-wrap:anywhere">{chip("! warning", RARENESS)} '
            f'<span style="opacity:.75">{escape(moment(event.ts))}</span> {escape(event.message or "")}</div>'
            for event in reversed(events)
        )
        st.html(heading("Warnings", "What the service has noticed besides.") + said)
