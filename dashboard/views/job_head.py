"""Head of a job's page: name, status, facts, progress, queue position and alerts; the title of the browser's tab."""

from datetime import UTC, datetime
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.markup import KINDS, duration, elapsed, escape, job_link, moment, progress_bar, status_chip
from dashboard.palette import NEUTRAL, POLICY
from dashboard.reads import live, service
from dashboard.views import alerts

COUNTED = {"train": "steps", "what_if": "updates", "bisect": "probes"}  # progress of other kinds is in batches


def _facts(job: Job) -> str:
    facts = [
        KINDS[job.kind],
        f"project {job.project}",
        f"submitted {moment(job.created_at)}",
    ]
    if (seconds := elapsed(job)) is not None:
        facts.append(f"{'duration' if job.finished_at else 'running for'} {duration(seconds)}")
    if job.attempt > 1:
        facts.append(f"attempt {job.attempt}")
    if len(job.workers) > 1:
        facts.append(f"on {', '.join(job.workers)}")
    facts += [f"{name}: {value}" for name, value in job.labels.items()]
    return " · ".join(escape(fact) for fact in facts)


def _title(job: Job) -> str:
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0.4rem 0.9rem">'
        '<h1 style="font-size:1.9rem;font-weight:700;margin:0;padding:0;overflow-wrap:anywhere">'
        f"{escape(job.name)}</h1>"
        f"{status_chip(job.status)}</div>"
        f'<div style="opacity:0.8;font-size:0.9rem;margin-top:0.35rem">{_facts(job)}</div>'
    )


def tab_title(job: Job) -> str:
    """Return the title of the browser's tab: name, progress and service."""
    state = job.status.value
    if job.status.held and job.steps_total:
        state = f"{min(job.step / job.steps_total, 1):.0%}"
    return f"{job.name} · {state} · CalibRL"


def _time_left(job: Job) -> str:
    if job.status != JobStatus.RUNNING or job.steps_total is None or job.kind != "train":
        return ""
    history = live.history(job.id, job.attempt, (live.STEP_SECONDS,))
    history.refresh()
    pace = history.seconds_per_step(job.attempt_started_at)
    return "" if pace is None else f", about {duration(pace * (job.steps_total - job.step))} left"


def _stopped_early(job: Job) -> str:
    """How many of its steps a training ran that reached its early-stop accuracy; empty for other jobs."""
    planned, limit = job.spec.get("steps"), (job.spec.get("validation") or {}).get("stop_at_accuracy")
    if job.kind != "train" or job.status is not JobStatus.SUCCEEDED or not limit or not planned or job.step >= planned:
        return ""
    return f"Stopped early at {job.step} of {planned} steps: validation accuracy reached {limit:.0%}"


def _progress(job: Job) -> str:
    if job.steps_total is None:
        return ""
    if early := _stopped_early(job):
        return f'<div style="margin-top:0.6rem">{escape(early)}</div>'
    text = f"{job.step} of {job.steps_total} {COUNTED.get(job.kind, 'batches')}{_time_left(job)}"
    colour = POLICY if job.status.held else NEUTRAL
    bar = progress_bar(job.step / max(job.steps_total, 1), colour, "progress")
    return f'<div style="margin-top:0.6rem">{bar}<div style="font-size:0.85rem;margin-top:0.25rem">{text}</div></div>'


def _dependencies(job: Job) -> str:
    if job.attempt or job.status.final or not job.depends_on:  # later the overview shows the lineage
        return ""
    links = ", ".join(link for id in job.depends_on if (link := _dependency(id)))
    return f'<div style="font-size:0.9rem;margin-top:0.3rem">Depends on {links}</div>' if links else ""


def _dependency(id: UUID) -> str:
    """A link to a dependency; empty if it has succeeded, so that the job no longer waits for it."""
    try:
        job = service.job(str(id))
    except CalibrlError:  # deleted, or in a project without access
        return f"{escape(str(id)[:8])} (no access)"
    return "" if job.status is JobStatus.SUCCEEDED else job_link(id, job.name)


def _queue_place(job: Job) -> str:
    """The queue position of a queued job, the reason why it waits, and its estimated start."""
    entry = service.queue(job.project).get(job.id) if job.status == JobStatus.QUEUED else None
    if entry is None:
        return ""
    facts = [f"Queue position {entry.position}", entry.explanation]
    if entry.reason and entry.estimated_start:
        seconds = (entry.estimated_start - datetime.now(UTC)).total_seconds()
        facts.append(f"estimated start in {duration(seconds)}")
    return f'<div style="font-size:0.9rem;margin-top:0.3rem">{escape(" · ".join(facts))}</div>'


def draw(shown: Job, health: int) -> None:
    """Draw the live head of the page. A new status reruns the whole page, which starts or stops its timers.

    `health`: the place of the panel Health among the panels, from 1.
    """
    job, below = shown, ""
    head = st.empty()  # stays if the API does not answer
    with states.explained("trouble-head"), states.tolerated():
        job = states.reread(shown)
        below = _dependencies(job) + _queue_place(job) + _progress(job) + alerts.notice(job, health)
    head.html(_title(job) + below)
    st.set_page_config(page_title=tab_title(job))
    if (job.status, job.attempt) != (shown.status, shown.attempt):
        st.rerun()
