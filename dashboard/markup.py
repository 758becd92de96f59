"""HTML around text of users, models and datasets. Every such text is escaped."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import streamlit as st

from calibrl.schemas import GIB, Gpu, JobStatus, JobSummary, StudyStatus
from dashboard.palette import CORRECT, NEUTRAL, POLICY, RARENESS, WRONG, faded

STATUS = {  # colour and sign; the sign distinguishes them without colour
    JobStatus.QUEUED: (NEUTRAL, "○"),
    JobStatus.WAITING: (NEUTRAL, "◷"),
    JobStatus.RUNNING: (POLICY, "▶"),
    JobStatus.PAUSING: (RARENESS, "❙"),
    JobStatus.PAUSED: (RARENESS, "‖"),
    JobStatus.CANCELLING: (RARENESS, "◼"),
    JobStatus.SUCCEEDED: (CORRECT, "✓"),
    JobStatus.FAILED: (WRONG, "✕"),
    JobStatus.CANCELLED: (NEUTRAL, "⊘"),
}

KINDS = {"train": "Training", "evaluate": "Evaluation", "audit": "Audit", "what_if": "What if", "bisect": "Bisection"}
MARKDOWN = str.maketrans({character: f"\\{character}" for character in r"\`*_{}[]()<>#+-.!|~$:"})
CODE = re.compile(r"`([^`]+)`")
TABLE_STYLE = """<style>
.rows{width:100%;border-collapse:collapse;font-size:0.92rem}
.rows th{text-align:left;font-weight:600;font-size:0.8rem;opacity:.75;padding:.4rem .8rem .4rem 0;border:0;
  border-bottom:1px solid rgba(125,131,140,.3)}
.rows td{padding:.65rem .8rem .65rem 0;border:0;border-bottom:1px solid rgba(125,131,140,.3);vertical-align:middle}
.rows tr:hover td{background:rgba(125,131,140,.1)}
.rows a{color:inherit;text-underline-offset:.2em;font-weight:600;overflow-wrap:anywhere}
@media (max-width:820px){
  .rows thead{display:none}
  .rows tr{display:grid;grid-template-columns:1fr auto;gap:.3rem .8rem;padding:.7rem 0;
    border-bottom:1px solid rgba(125,131,140,.3)}
  .rows td{display:block;padding:0;border:0}
  .rows td[data-label]::before{content:attr(data-label) " ";opacity:.7;font-size:.8rem}
}
</style>"""


def escape(text: object) -> str:
    """Return text as HTML that shows it unchanged."""
    return html.escape(str(text), quote=True)


def as_markdown(text: str) -> str:
    """Return text as Markdown that shows it unchanged."""
    return text.translate(MARKDOWN)


def heading(title: str, hint: str) -> str:
    """Return a card's title with its hint below. Text between backticks becomes code."""
    text = CODE.sub(r"<code>\1</code>", escape(hint))
    return (
        f'<h3 style="font-size:1rem;font-weight:600;margin:0;padding:0">{escape(title)}</h3>'
        f'<div style="font-size:0.85rem;line-height:1.35;opacity:0.8;margin-top:0.15rem">{text}</div>'
    )


def chip(text: str, colour: str) -> str:
    """Return a small label: coloured outline, text in the page's colour."""
    return (
        f'<span style="display:inline-block;padding:0.05rem 0.55rem;border-radius:1rem;white-space:nowrap;'
        f"border:1px solid {faded(colour, 0.7)};background:{faded(colour, 0.14)};font-size:0.8rem;line-height:1.35rem"
        f'">{escape(text)}</span>'
    )


def status_chip(status: JobStatus | StudyStatus) -> str:
    """Return the label of a status."""
    colour, sign = STATUS[JobStatus(status)]
    return chip(f"{sign} {status.value}", colour)


def progress_bar(share: float, colour: str, label: str) -> str:
    """Return a bar filled to a share from 0 to 1; screen readers read the label."""
    percent = round(100 * min(max(share, 0.0), 1.0), 1)
    return (
        f'<div role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}" '
        f'aria-label="{escape(label)}" style="height:0.4rem;min-width:4rem;border-radius:1rem;overflow:hidden;'
        f'background:{faded(NEUTRAL, 0.25)}"><div style="height:100%;width:{percent}%;border-radius:1rem;'
        f'background:{colour}"></div></div>'
    )


def duration(seconds: float) -> str:
    """Return seconds as text: 42 s, 3 min 05 s, 2 h 10 min, 3 d 4 h."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def elapsed(job: JobSummary) -> float | None:
    """Return the seconds that a job has run (running) or ran (ended), without pauses; None for a job in another
    status."""
    return job.run_seconds if job.status.held or job.status.final else None


def moment(at: datetime) -> str:
    """Return a time to the minute, in the time zone of the reader's browser."""
    return at.astimezone(ZoneInfo(st.context.timezone or "UTC")).strftime("%d %b %Y, %H:%M")


def clock(at: datetime) -> str:
    """Return the time of day to the second, in the time zone of the reader's browser."""
    return f"{at.astimezone(ZoneInfo(st.context.timezone or 'UTC')):%H:%M:%S}"


def table(titles: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table of rows of HTML; on a phone each row becomes a card."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    return f'{TABLE_STYLE}<table class="rows"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def job_link(job_id: UUID, name: str) -> str:
    """Return a link to a job's page."""
    return f'<a href="job?id={job_id}" target="_self" style="color:inherit;font-weight:600">{escape(name)}</a>'


def group_link(job_id: UUID, step: int, number: int, text: str) -> str:
    """Return a link to a sampled group: number `number` of its step, from 1."""
    address = f"job?id={job_id}&panel=Rollouts&step={step}&group={number}"
    return f'<a href="{escape(address)}" target="_self">{escape(text)}</a>'


def file_link(address: str, text: str) -> str:
    """Return a link that downloads a file instead of opening it."""
    return f'<a href="{escape(address)}" download style="color:inherit;font-weight:600">{escape(text)}</a>'


def gpu_table(gpus: Sequence[Gpu]) -> str:
    """Return a table of a machine's GPUs: holder, utilization and memory."""
    return table(("GPU", "Card", "Held by", "Utilization", "Memory"), map(_gpu_row, gpus))


def _gpu_row(gpu: Gpu) -> str:
    memory = progress_bar(gpu.memory_used / max(gpu.memory_total, 1), NEUTRAL, f"memory of GPU {gpu.index}")
    use = progress_bar(gpu.utilisation / 100, POLICY, f"utilization of GPU {gpu.index}")
    holder = "free" if gpu.clean else "memory not released yet"
    if gpu.job_id:
        holder = job_link(gpu.job_id, str(gpu.job_id)[:8])
    return (
        f'<tr><td data-label="GPU">{gpu.index}</td><td>{escape(gpu.name)}</td><td data-label="Held by">{holder}</td>'
        f'<td>{use}<span style="font-size:.8rem">{gpu.utilisation:.0f} %</span></td>'
        f'<td>{memory}<span style="font-size:.8rem">{gpu.memory_used / GIB:.1f} of {gpu.memory_total / GIB:.0f} GiB'
        "</span></td></tr>"
    )


def sparkline(values: Sequence[float | None], colour: str, label: str, *, top: float | None = None) -> str:
    """Return a small curve from 0 to `top` or to its own maximum; screen readers read the label."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    high = top or max(value for _, value in known) or 1.0
    last = known[-1][0] or 1
    points = " ".join(
        f"{2 + 76 * place / last:.1f},{20 - 18 * min(max(value / high, 0), 1):.1f}" for place, value in known
    )
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 22" width="80" height="22"><polyline fill="none" '
        f'points="{points}" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round"/></svg>'
    )
    content = base64.b64encode(drawn.encode()).decode()  # an image, because Streamlit removes SVG from HTML
    return (
        f'<img src="data:image/svg+xml;base64,{content}" alt="{escape(label)}" width="80" height="22" '
        'style="vertical-align:middle">'
    )
