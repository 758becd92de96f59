"""Slot-hours of a job or a project, by what they bought."""

import streamlit as st

from calibrl.schemas import JobHours, Price, ProjectHours, SlotHours
from dashboard.markup import escape, heading, job_link, progress_bar, status_chip, table
from dashboard.palette import CORRECT, EXPERT, NEUTRAL, RARENESS, VALIDATION, WRONG

COLOURS = {
    "learning": CORRECT,
    "no_advantage": WRONG,
    "truncated": WRONG,
    "waiting": RARENESS,
    "validation": VALIDATION,
    "evaluation": VALIDATION,
    "start": NEUTRAL,
    "restarts": EXPERT,
    "other": NEUTRAL,
}
HINT = "Each slot-hour (GPU or CPU slot) is counted once. Orange: sampling that teaches nothing"
JOB_TITLES = ("Job", "Status", "Slot-hours", "No advantage", "Restarts", "Per point", "Price")


def job_hours(hours: JobHours) -> None:
    """Draw the hours of a job."""
    with st.container(border=True, key="card-hours"):
        st.html(heading("Where the hours went", HINT) + _bought(hours.bought, hours.slot_hours))
        st.html(_facts(_job_facts(hours)))


def _job_facts(hours: JobHours) -> list[str]:
    facts = [f"{hours.slot_hours:,.2f} slot-hours", f"{hours.queued_hours:,.2f} h without a slot"]
    if hours.slot_hours_per_point is not None:
        gained = f"{hours.first_accuracy:.1%} to {hours.best_accuracy:.1%}"
        facts.append(f"{hours.slot_hours_per_point:,.3g} slot-hours per point of validation accuracy ({gained})")
    return facts if hours.price is None else [*facts, _price(hours.price)]


def project_hours(hours: ProjectHours) -> None:
    """Draw the hours of a project, with the jobs that used most."""
    st.html(_bought(hours.bought, hours.slot_hours))
    facts = [
        f"{hours.jobs:,} job{'s' if hours.jobs != 1 else ''}",
        f"{hours.slot_hours:,.2f} slot-hours",
        f"{hours.lost_slot_hours:,.2f} of failed or cancelled jobs",
    ]
    st.html(_facts(facts if hours.price is None else [*facts, _price(hours.price)]))
    st.html(table(JOB_TITLES, map(_job_row, hours.most)))


def _facts(facts: list[str]) -> str:
    return f'<div style="opacity:.8;font-size:.9rem">{escape(" · ".join(facts))}</div>'


def _bought(bought: SlotHours, total: float) -> str:
    rows = [_row(name, value, value / total) for name, value in bought if value]
    return table(("Bought", "Slot-hours", "Share", ""), rows)


def _row(name: str, value: float, share: float) -> str:
    title = name.replace("_", " ").capitalize()
    meaning = SlotHours.model_fields[name].description or ""
    small = "font-size:.8rem;opacity:.8"
    return (
        f'<tr><td style="width:45%"><b>{escape(title)}</b><div style="{small}">{escape(meaning)}</div></td>'
        f'<td data-label="Slot-hours">{value:,.3f}</td><td data-label="Share">{share:.0%}</td>'
        f"<td>{progress_bar(share, COLOURS[name], f'share of {title}')}</td></tr>"
    )


def _job_row(job: JobHours) -> str:
    none, restarts = (
        f"{value / job.slot_hours:.0%}" if job.slot_hours else "–"
        for value in (job.bought.no_advantage, job.bought.restarts)
    )
    point = "–" if job.slot_hours_per_point is None else f"{job.slot_hours_per_point:,.3g}"
    return (
        f"<tr><td>{job_link(job.job_id, job.name)}</td><td>{status_chip(job.status)}</td>"
        f'<td data-label="Slot-hours">{job.slot_hours:,.3f}</td><td data-label="No advantage">{none}</td>'
        f'<td data-label="Restarts">{restarts}</td><td data-label="Per point">{point}</td>'
        f'<td data-label="Price">{"–" if job.price is None else escape(_price(job.price))}</td></tr>'
    )


def _price(price: Price) -> str:
    return f"{price.amount:,.2f} {price.currency}"
