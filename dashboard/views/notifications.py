"""Notifications of the browser about jobs: see `notifications.js`."""

from pathlib import Path

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import JobSummary
from dashboard import signin
from dashboard.reads import service

_mount = st.components.v2.component(
    "notifications",
    html='<button type="button" hidden></button> <span></span>',  # without a name until the script names it
    css="""button{padding:.35rem .9rem;border:1px solid var(--st-border-color);border-radius:.5rem;background:none;
color:var(--st-text-color);font:inherit;font-size:.875rem;cursor:pointer}span{color:var(--st-text-color);font-size:.9rem}
button:focus-visible{outline:2px solid currentColor;outline-offset:2px}""",
    js=(Path(__file__).parents[1] / "notifications.js").read_text(),
)


def listen() -> None:
    """Look for news of the viewer's jobs, if the viewer has turned notifications on. Call it once per page."""
    try:
        user = service.me().user
    except (signin.SignedOut, CalibrlError):  # the page says so
        return
    with st.container(key="notifications"):  # hidden by the style of all pages
        _mount(data={"user": user, "role": "listener"}, key="notifications_listener")


def switch() -> None:
    """Draw the switch of notifications. The browser asks for the permission after the click."""
    st.subheader("Notifications", anchor=False)
    st.write("The browser tells you when a job that you submitted or watch ends or has an alert, while a page is open.")
    _mount(data={"user": service.me().user, "role": "switch"}, key="notifications_switch")


def watch(job: JobSummary) -> None:
    """Draw the button to watch a job of another person."""
    user = service.me().user
    if job.user != user and not job.status.final:
        _mount(data={"user": user, "role": "watch", "job": str(job.id)}, key="notifications_watch")
