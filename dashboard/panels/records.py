"""What a job tells of itself: its log, events and spec. All of it is shown as plain text."""

import streamlit as st
import yaml

from calibrl.schemas import Event, Job
from dashboard import states
from dashboard.markup import escape, file_link, heading, moment, status_chip
from dashboard.panels import lineage
from dashboard.panels.common import draw_live
from dashboard.reads import live
from dashboard.reads.downloads import address
from dashboard.views.spec_diff import ordered

MOST_FOUND = 500  # lines that a search shows


def log(job: Job) -> None:
    draw_live(job, _log)


def _log(job: Job) -> None:
    tail = live.log(job.id)
    with states.tolerated():
        tail.refresh()
    if not tail.text:
        states.empty("The log is empty", "What the trainer prints appears here.")
        return
    sought = st.text_input(
        "Search", key="log_search", placeholder="Search the log", icon=":material/search:", label_visibility="collapsed"
    )
    text, said = tail.shown, "The end of the log." if tail.cut else "The whole log."
    if sought:
        found = [line for line in tail.text.splitlines() if sought.casefold() in line.casefold()]
        text = "\n".join(found[-MOST_FOUND:])
        said = f"{len(found):,} line{'s' if len(found) != 1 else ''} with this text"
        said += f", of which the last {MOST_FOUND} are shown." if len(found) > MOST_FOUND else "."
    st.html(
        '<div style="display:flex;flex-wrap:wrap;justify-content:space-between;gap:.4rem;font-size:.9rem">'
        f"<span>{escape(said)}</span>{file_link(address(job.id, 'log.txt'), 'Download all of it')}</div>"
    )
    with st.container(height=560, autoscroll=not sought, border=False):
        st.code(text, language=None, wrap_lines=True)


def events(job: Job) -> None:
    draw_live(job, _events)


def _event(event: Event) -> str:
    reason = f" ({escape(event.reason.value.replace('_', ' '))})" if event.reason else ""
    message = (
        f'<div style="white-space:pre-wrap;overflow-wrap:anywhere;opacity:0.85">{escape(event.message)}</div>'
        if event.message
        else ""
    )
    what = status_chip(event.status) if event.status else f"<b>{escape(event.type)}</b>"
    return (
        '<div style="display:grid;grid-template-columns:minmax(7.5rem,auto) 1fr;gap:0.2rem 1rem;padding:0.5rem 0;'
        'border-bottom:1px solid rgba(125,131,140,.3)">'
        f'<span style="opacity:0.75;white-space:nowrap">{escape(moment(event.ts))}</span>'
        f"<div>{what}{reason} <span style='opacity:0.75'>by {escape(event.actor)}</span>{message}</div></div>"
    )


def _events(job: Job) -> None:
    happened = live.events(job.id)
    with states.tolerated():
        happened.refresh()
    if not happened.events:
        states.empty("Nothing has happened yet", "Every change in the job's life is kept here.")
        return
    st.html("".join(_event(event) for event in reversed(happened.events)))


def spec(job: Job) -> None:
    with st.container(border=True, key="card-choices"):
        st.html(heading("What was chosen", "Where it differs from the defaults.") + lineage.choices(job))
    st.caption("The spec with every default filled in. Save it, change it, and submit it: calibrl submit FILE.yaml")
    st.code(yaml.safe_dump(ordered(job.spec), sort_keys=False, allow_unicode=True), language=None)
