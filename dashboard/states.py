"""What a page shows when there is nothing to show: empty, and what went wrong with what mends it."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from calibrl.client import CalibrlError
from dashboard import signin
from dashboard.markup import escape
from jobs.settings import SettingsError

# A link of ours, as Streamlit's own buttons open another tab.
SIGN_IN = (
    f'<a href="{signin.PATH}" target="_self" style="display:inline-block;padding:.45rem 1.2rem;border-radius:.5rem;'
    'background:#1f5fbf;color:#fff;font-weight:600;text-decoration:none">Sign in</a>'
)


def empty(title: str, text: str) -> None:
    """Nothing here, and why. `title` and `text` are our own; they are escaped all the same."""
    st.html(
        '<div style="text-align:center;padding:2.5rem 1rem;opacity:0.85">'
        f'<div style="font-size:1.15rem;font-weight:600;margin-bottom:0.4rem">{escape(title)}</div>'
        f'<div style="max-width:36rem;margin:0 auto">{escape(text)}</div></div>'
    )


def _advice(error: CalibrlError) -> tuple[str, str]:
    if error.status == 401:
        return "Your key is no longer accepted", "It was revoked, or has expired: sign in with another one."
    if error.status == 403:
        return "You may not do this", "Your role in the project does not allow it; its admins can change that."
    if error.status == 404:
        return "There is no such job", "The address may be mistyped, or the job belongs to a project that is not yours."
    if error.status is None:
        return "The API does not answer", "It may still be starting. Try again in a moment."
    return "The API could not answer", "Its log says more."


def trouble(error: CalibrlError | SettingsError) -> None:
    """An error, what it means and what mends it; the message is shown as plain text."""
    title, advice = _advice(error) if isinstance(error, CalibrlError) else ("A setting is wrong", "")
    with st.container(border=True, key="trouble"):
        st.subheader(title, anchor=False)
        if advice:
            st.write(advice)
        st.code(str(error), language=None, wrap_lines=True)
        if isinstance(error, CalibrlError) and error.status == 401:
            st.html(SIGN_IN)
            return
        if st.button("Try again", icon=":material/refresh:"):
            st.rerun()


def signed_out() -> None:
    """Nobody has signed in."""
    empty("Signed out", "The jobs of your projects are shown once you have signed in with an API key.")
    st.html(f'<div style="text-align:center">{SIGN_IN}</div>')


@contextmanager
def explained() -> Iterator[None]:
    """Shows an error of the API, or that nobody has signed in, in the page's place instead of a stack trace."""
    try:
        yield
    except signin.SignedOut:
        signed_out()
    except (CalibrlError, SettingsError) as error:
        trouble(error)


@contextmanager
def tolerated() -> Iterator[None]:
    """For a live read: an error is one line above what was read before, and the next tick tries again."""
    try:
        yield
    except CalibrlError as error:
        st.warning("No answer from the API just now: what you see may be old. Trying again.", icon=":material/sync:")
        st.text(str(error))
