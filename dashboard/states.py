"""Empty pages and errors, each with its remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job
from calibrl.settings import SettingsError
from dashboard import addresses, signin
from dashboard.markup import clock, escape
from dashboard.reads import service

REFUSED = {  # by status: title, remedy
    409: ("Conflict", "The request does not fit the current state."),
    413: ("Too large", "The request exceeds the size limit of the service."),
    422: ("Invalid input", "Correct the fields below."),
    429: ("Too many requests", "Wait a moment, then try again."),
    503: ("Service busy", "Try again in a moment."),
}
READ_AT = "read-at"  # session key: time of the last live read without an error
_warned_above: ContextVar[bool] = ContextVar("warned_above", default=False)
NO_ACCESS = (401, 403, 404)  # statuses of what the viewer cannot see, or can no longer see


def _sign_in() -> str:
    """A link that returns to the current page after sign-in. Streamlit's link buttons would open a new tab."""
    here = (urlsplit(st.context.url or "/").path or "/") + addresses.choices()
    address = f"{signin.PATH}?{urlencode({'next': here})}"
    return (
        f'<a href="{escape(address)}" target="_self" style="display:inline-block;padding:.45rem 1.2rem;'
        'border-radius:.5rem;background:#1f5fbf;color:#fff;font-weight:600;text-decoration:none">Sign in</a>'
    )


def empty(title: str, text: str) -> None:
    """Draw an empty state: a title, and the reason or the next action. Both are escaped."""
    st.html(
        '<div style="text-align:center;padding:2.5rem 1rem;opacity:0.85">'
        f'<div style="font-size:1.15rem;font-weight:600;margin-bottom:0.4rem">{escape(title)}</div>'
        f'<div style="max-width:36rem;margin:0 auto">{escape(text)}</div></div>'
    )


def _advice(error: CalibrlError) -> tuple[str, str]:
    if error.status == 401:
        return "API key revoked or expired", "Sign in with another key."
    if error.status == 403:
        return (
            "Permission denied",
            "Your role in the project does not allow this. An admin of the project can change it.",
        )
    if error.status == 404:
        return "Not found, or you have no access", "The URL may be wrong, or it was deleted."
    if error.status in REFUSED:
        return REFUSED[error.status]
    if error.status is None:
        return "API unreachable", "It may still be starting. Try again in a moment."
    return "API error", "See the log of the API."


def trouble(error: CalibrlError | SettingsError, key: str = "trouble") -> None:
    """Draw an error with its meaning and its remedy. The message is shown as plain text."""
    title, advice = _advice(error) if isinstance(error, CalibrlError) else ("Invalid setting", "")
    with st.container(border=True, key=key):
        st.subheader(title, anchor=False)
        if advice:
            st.write(advice)
        st.code(str(error), language=None, wrap_lines=True)
        if isinstance(error, CalibrlError) and error.status == 401:
            st.html(_sign_in())
            return
        if st.button("Try again", icon=":material/refresh:", key=f"{key}-again"):
            st.rerun()


def signed_out() -> None:
    """Draw the page of a viewer without a key."""
    empty("Signed out", "Sign in with an API key to see the jobs of your projects.")
    st.html(f'<div style="text-align:center">{_sign_in()}</div>')


@contextmanager
def explained(key: str = "trouble") -> Iterator[None]:
    """Draw an error of the API, or the sign-in link, in place of a page or of a part of a page.

    Each part needs a key of its own.
    """
    try:
        yield
    except signin.SignedOut:
        signed_out()
    except (CalibrlError, SettingsError) as error:
        trouble(error, key)


def reread(job: Job) -> Job:
    """Return the current state of a job, for a run of a fragment of its page.

    This checks access before shared data is drawn. Without access the whole page runs again and shows the reason.
    """
    try:
        return service.job(str(job.id))
    except signin.SignedOut:
        st.rerun()
    except CalibrlError as error:
        if error.status in NO_ACCESS:
            st.rerun()
        raise


@contextmanager
def warned_above() -> Iterator[None]:
    """Draw no further warning: the head of the page has one already."""
    token = _warned_above.set(True)
    try:
        yield
    finally:
        _warned_above.reset(token)


@contextmanager
def tolerated() -> Iterator[None]:
    """Draw an error of a live read as one line above the older data; the next tick tries again.

    Missing access is not tolerated: the error is raised.
    """
    try:
        yield
    except CalibrlError as error:
        if error.status in NO_ACCESS:
            raise
        if _warned_above.get():
            return
        problem, _ = _advice(error)
        read_at: datetime | None = st.session_state.get(READ_AT)
        state = f"Data from {clock(read_at)}; retrying…" if read_at else "Retrying…"
        st.warning(f"{problem}. {state}", icon=":material/sync:")
        st.text(str(error))
    else:
        st.session_state[READ_AT] = datetime.now(UTC)
