"""What a job left behind: its log, checkpoints, events and spec. All of it is shown as plain text."""

import streamlit as st
import yaml

from dashboard import data, states
from dashboard.markup import escape, moment, status_chip
from dashboard.panels.common import live
from jobs.schemas import Event, Job


def log(job: Job) -> None:
    live(job, _log)


def _log(job: Job) -> None:
    tail = data.log(job.id)
    with states.tolerated():
        tail.refresh()
    if not tail.text:
        states.empty("The log is empty", "What the trainer prints appears here.")
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption("The end of the log." if tail.cut else "The whole log.")
        st.download_button(
            "Download all of it",
            lambda: data.whole_log(job.id),
            f"{job.id}.log.txt",
            "text/plain",
            icon=":material/download:",
            on_click="ignore",
        )
    with st.container(height=560, autoscroll=True, border=False):
        st.code(tail.text, language=None, wrap_lines=True)


def checkpoints(job: Job) -> None:
    live(job, _checkpoints)


def _checkpoints(job: Job) -> None:
    kept = []
    with states.tolerated():
        kept = data.checkpoints(job.id)
    if not kept:
        states.empty("No checkpoint yet", "Each is a folder that a job can start from, or that you can load yourself.")
        return
    rows = [
        {
            "Step": checkpoint.step,
            "Best": checkpoint.best,
            "Metrics": ", ".join(f"{name} {float(value):.4g}" for name, value in checkpoint.metrics.items()),
            "Folder on the worker": checkpoint.path,
            "Written": checkpoint.created_at,
        }
        for checkpoint in sorted(kept, key=lambda checkpoint: -checkpoint.step)
    ]
    st.dataframe(
        rows,
        hide_index=True,
        key="checkpoints",
        alt="Checkpoints",
        column_config={"Written": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm")},
    )


def events(job: Job) -> None:
    live(job, _events)


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
    happened = data.events(job.id)
    with states.tolerated():
        happened.refresh()
    if not happened.events:
        states.empty("Nothing has happened yet", "Every change in the job's life is kept here.")
        return
    st.html("".join(_event(event) for event in reversed(happened.events)))


def spec(job: Job) -> None:
    st.caption("The spec with every default filled in. Save it, change it, and submit it: `calibrl submit FILE.yaml`.")
    st.code(yaml.safe_dump(job.spec, sort_keys=False, allow_unicode=True), language=None)
