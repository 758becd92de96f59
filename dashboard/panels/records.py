"""Records of a job: its log, events and spec, shown as plain text."""

from collections.abc import Collection

import streamlit as st
import yaml

from calibrl.schemas import Event, Job
from dashboard import states
from dashboard.markup import escape, file_link, heading, moment, status_chip
from dashboard.panels import lineage
from dashboard.panels.common import draw_live
from dashboard.panels.panel import Panel
from dashboard.reads import live
from dashboard.reads.downloads import address
from dashboard.views import reproduction
from dashboard.views.spec_diff import ordered

MOST_FOUND = 500  # lines that a search shows


def log(job: Job) -> None:
    """Draw the panel Log."""
    draw_live(job, _log)


def _log(job: Job) -> None:
    tail = live.log(job.id)
    with states.tolerated():
        tail.refresh()
    if not tail.text:
        states.empty("Empty log", "Output of the trainer appears here.")
        return
    words = st.text_input(
        "Search", key="log_search", placeholder="Search the log", icon=":material/search:", label_visibility="collapsed"
    )
    text, title = tail.shown, f"Last {live.LOG_TAIL:,} characters" if tail.cut else "Full log"
    if words:
        lines = [line for line in tail.text.splitlines() if words.casefold() in line.casefold()]
        text = "\n".join(lines[-MOST_FOUND:])
        title = f"{len(lines):,} matching line{'s' if len(lines) != 1 else ''}"
        title += f", last {MOST_FOUND} shown" if len(lines) > MOST_FOUND else ""
    st.html(
        '<div style="display:flex;flex-wrap:wrap;justify-content:space-between;gap:.4rem;font-size:.9rem">'
        f"<span>{escape(title)}</span>{file_link(address(job.id, 'log.txt'), 'Download log')}</div>"
    )
    with st.container(height=560, autoscroll=not words, border=False):
        st.code(text, language=None, wrap_lines=True)


def events(job: Job) -> None:
    """Draw the panel Events."""
    draw_live(job, _events)


def _event(event: Event, workers: Collection[str]) -> str:
    reason = f" ({escape(event.reason.value.replace('_', ' '))})" if event.reason else ""
    message = (
        f'<div style="white-space:pre-wrap;overflow-wrap:anywhere;opacity:0.85">{escape(event.message)}</div>'
        if event.message
        else ""
    )
    title = status_chip(event.status) if event.status else f"<b>{escape(event.type.capitalize())}</b>"
    actor = f"worker {event.actor}" if event.actor in workers else event.actor
    return (
        '<div style="display:grid;grid-template-columns:minmax(7.5rem,auto) 1fr;gap:0.2rem 1rem;padding:0.5rem 0;'
        'border-bottom:1px solid rgba(125,131,140,.3)">'
        f'<span style="opacity:0.75;white-space:nowrap">{escape(moment(event.ts))}</span>'
        f"<div>{title}{reason} <span style='opacity:0.75'>{escape(actor)}</span>{message}</div></div>"
    )


def _events(job: Job) -> None:
    history = live.events(job.id)
    with states.tolerated():
        history.refresh()
    if not history.events:
        states.empty("No events yet", "Each change of the job's status appears here.")
        return
    workers = {event.actor for event in history.events if event.type == "claimed"}
    st.html("".join(_event(event, workers) for event in reversed(history.events)))


def spec(job: Job) -> None:
    """Draw the panel Spec."""
    with st.container(border=True, key="card-choices"):
        st.html(heading("Config overrides", "Fields that differ from the defaults") + lineage.overrides(job))
    with states.explained("trouble-reproduction"):
        reproduction.draw(job)
    st.caption("Full config with all defaults. To run it again: save it, edit it, then `calibrl submit FILE.yaml`.")
    st.code(yaml.safe_dump(ordered(job.spec), sort_keys=False, allow_unicode=True), language=None)


PANELS = (
    Panel("Log", log, 100, kinds=()),
    Panel("Events", events, 120, kinds=()),
    Panel("Spec", spec, 130, kinds=()),
)
