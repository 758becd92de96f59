"""Lineage of a job and its config overrides. Both change seldom and are read once."""

from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobSummary
from dashboard import states
from dashboard.markup import KINDS, escape, heading, job_link, status_chip, table
from dashboard.reads import service
from dashboard.views.spec_diff import changed_fields

MOST_ANCESTORS = 6  # generations
DASH = '<span style="opacity:.7">–</span>'


def draw(job: Job) -> None:
    """Draw both cards side by side."""
    left, right = st.columns([1, 1.4])
    with left, st.container(border=True, key="card-lineage"):
        st.html(heading("Lineage", "Parent checkpoint and derived jobs") + _lineage(job))
    with right, st.container(border=True, key="card-choices"):
        st.html(heading("Config overrides", "Full config under Spec") + overrides(job))


def _source(job: Job) -> tuple[UUID, str] | None:
    """Return the job whose checkpoint this job started from, and the checkpoint."""
    if job.forked_from is not None:
        return job.forked_from, "" if job.forked_step is None else f"step {job.forked_step}"
    model = job.spec.get("model") or {}
    return (UUID(model["from_job"]), str(model.get("checkpoint", "best"))) if "from_job" in model else None


def _ancestors(job: Job) -> list[str]:
    """Return the ancestors, oldest first, as lines of HTML."""
    lines: list[str] = []
    while (source := _source(job)) is not None and len(lines) < MOST_ANCESTORS:
        id, which = source
        try:
            job = service.job(str(id))
        except CalibrlError:  # deleted, or in a project without access
            return [f"{escape(str(id)[:8])} (no access)", *lines]
        line = f"{job_link(job.id, job.name)} {status_chip(job.status)}"
        lines.insert(0, f"{line} <span style='opacity:.75'>{escape(which)}</span>" if which else line)
    model = job.spec.get("model") or {}
    start = model.get("builtin") or model.get("path") or model.get("hub")
    return [f"<span style='overflow-wrap:anywhere'>{escape(start)}</span>", *lines] if start else lines


def _line(text: str, depth: int) -> str:
    sign = '<span aria-hidden="true" style="opacity:.6">↳ </span>' if depth else ""
    return f'<div style="margin:.4rem 0 0 {1.1 * depth:.1f}rem">{sign}{text}</div>'


def _descendants(jobs: list[JobSummary]) -> list[str]:
    return [
        f'{job_link(job.id, job.name)} {status_chip(job.status)} <span style="opacity:.75">'
        f"{'fork' if job.forked_from else KINDS[job.kind].lower()}</span>"
        for job in jobs
    ]


def _lineage(job: Job) -> str:
    before, after = _ancestors(job), []
    with states.tolerated():
        after = _descendants(service.derived(job.id))
    lines = [_line(text, depth) for depth, text in enumerate(before)]
    lines.append(_line(f"<b>{escape(job.name)}</b> (this job)", len(before)))
    return "".join([*lines, *(_line(text, len(before) + 1) for text in after)])


def overrides(job: Job) -> str:
    """Return a table of the fields of a job's spec that differ from the defaults."""
    rows = (
        f"<tr><td><code>{escape(field)}</code></td>"
        f'<td style="overflow-wrap:anywhere"><b>{_shown(field, value)}</b></td>'
        f'<td data-label="Default">{DASH if default is None else escape(default)}</td></tr>'
        for field, value, default in changed_fields(job.spec)
    )
    return table(("Field", "Value", "Default"), rows)


def _shown(field: str, value: str) -> str:
    """A value as HTML: a job's ID as a link with the job's name, if the viewer has access."""
    if field != "model.from_job":
        return escape(value)
    try:
        return job_link(UUID(value), service.job(value).name)
    except CalibrlError:  # deleted, or in a project without access
        return escape(value)
