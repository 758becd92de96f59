"""Alerts of health rules and of alert rules: read from events, as a notice above a job, and as marks in charts."""

from collections.abc import Iterable

from calibrl.schemas import Event, Job, JobSummary
from calibrl.schemas.events import surviving
from calibrl_core.health import RULES
from dashboard.charts.marks import Mark
from dashboard.markup import chip, escape
from dashboard.palette import WRONG, faded

TEXTS: dict[str, tuple[str, str]] = {rule.name: (rule.title, rule.about) for rule in RULES}


def title_of(rule: str) -> str:
    """Return the title of a health rule, or the name of an alert rule."""
    return TEXTS.get(rule, (rule, ""))[0]


def marks(events: Iterable[Event]) -> tuple[Mark, ...]:
    """Return a mark at the step of each alert, without those that a resumed run has taken back."""
    alerts = surviving(event.alert for event in events if event.alert)
    fired = {(alert.step, alert.rule): None for alert in alerts if alert.state == "fired"}
    return tuple(Mark(step, f"health alert: {title_of(rule)}", top=True) for step, rule in sorted(fired))


def count(job: JobSummary) -> str:
    """Return the number of active alerts of a job as a label; empty without any."""
    number = len(job.alerts)
    return chip(f"! {number} alert{'s' if number != 1 else ''}", WRONG) if number else ""


def notice(job: Job, place: int) -> str:
    """Return the active alerts of a job with a link to their advice, and a badge at their tab; empty without any.

    `place`: of the tab in the row of panels, from 1.
    """
    if not job.alerts:
        return ""
    names = ", ".join(map(title_of, job.alerts))
    when = "Health alerts at the end" if job.status.final else "Active health alerts"
    badge = (
        f'.st-key-panel button:nth-of-type({place})::after{{content:"{len(job.alerts)}";margin-left:.4rem;'
        f"padding:0 .4rem;border-radius:1rem;background:{WRONG};color:#fff;font-size:.75rem;font-weight:700}}"
    )
    return (
        f'<style>{badge}</style><div role="alert" style="margin-top:.6rem;padding:.45rem .7rem;border-radius:.4rem;'
        f'border:1px solid {faded(WRONG, 0.7)};background:{faded(WRONG, 0.14)};font-size:.9rem">'
        f"{when}: <b>{escape(names)}</b>. "
        f'<a href="job?id={job.id}&amp;panel=Health" target="_self" style="color:inherit">What to do</a></div>'
    )
