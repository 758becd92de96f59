"""Where a job comes from and what comes of it, and what its spec chooses: they change seldom, and are read once."""

from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobSummary
from dashboard import states
from dashboard.markup import escape, heading, job_link, status_chip, table
from dashboard.panels.common import algorithm
from dashboard.reads import data
from dashboard.views.spec_diff import chosen

MOST_BEFORE = 6  # generations
DASH = '<span style="opacity:.7">–</span>'


def draw(job: Job) -> None:
    """Both cards, side by side."""
    left, right = st.columns([1, 1.4])
    with left, st.container(border=True, key="card-lineage"):
        st.html(heading("Lineage", "What it began with, and what came of it.") + _lineage(job))
    with right, st.container(border=True, key="card-choices"):
        hint = "Where the spec differs from the defaults; the panel Spec has all of it."
        st.html(heading("What was chosen", hint) + choices(job))


def _source(job: Job) -> tuple[UUID, str] | None:
    """The job whose checkpoint a job began with, and which."""
    if job.forked_from is not None:
        return job.forked_from, "" if job.forked_step is None else f"step {job.forked_step}"
    model = job.spec.get("model") or {}
    return (UUID(model["from_job"]), str(model.get("checkpoint", "best"))) if "from_job" in model else None


def _before(job: Job) -> list[str]:
    """Its ancestors, oldest first, as lines of HTML."""
    lines: list[str] = []
    while (source := _source(job)) is not None and len(lines) < MOST_BEFORE:
        id, which = source
        try:
            job = data.job(str(id))
        except CalibrlError:  # deleted, or of a project that is not the viewer's
            return [f"{escape(str(id)[:8])} (out of sight)", *lines]
        said = f"{job_link(job.id, job.name)} {status_chip(job.status)}"
        lines.insert(0, f"{said} <span style='opacity:.75'>{escape(which)}</span>" if which else said)
    model = job.spec.get("model") or {}
    start = model.get("builtin") or model.get("path")
    return [f"<span style='overflow-wrap:anywhere'>{escape(start)}</span>", *lines] if start else lines


def _line(text: str, depth: int) -> str:
    sign = '<span aria-hidden="true" style="opacity:.6">↳ </span>' if depth else ""
    return f'<div style="margin:.4rem 0 0 {1.1 * depth:.1f}rem">{sign}{text}</div>'


def _after(jobs: list[JobSummary]) -> list[str]:
    kinds = {"train": "training", "evaluate": "evaluation"}
    return [
        f'{job_link(job.id, job.name)} {status_chip(job.status)} <span style="opacity:.75">'
        f"{'fork' if job.forked_from else kinds[job.kind]}</span>"
        for job in jobs
    ]


def _lineage(job: Job) -> str:
    before, after = _before(job), []
    with states.tolerated():
        after = _after(data.derived(job.id))
    lines = [_line(text, depth) for depth, text in enumerate(before)]
    lines.append(_line(f"<b>{escape(job.name)}</b> (this job)", len(before)))
    return "".join([*lines, *(_line(text, len(before) + 1) for text in after)])


def choices(job: Job) -> str:
    """The fields in which a job's spec differs from the defaults, beside those."""
    rows = (
        f'<tr><td><code>{escape(field)}</code></td><td style="overflow-wrap:anywhere"><b>{escape(value)}</b></td>'
        f'<td data-label="Default">{DASH if default is None else escape(default)}</td></tr>'
        for field, value, default in chosen(job.spec)
    )
    return table(("Field", "Value", f"Default of {algorithm(job) or job.kind}"), rows)
