"""What a page shows when there is nothing to show: empty, and what went wrong with what mends it."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job
from calibrl.settings import SettingsError
from dashboard import signin
from dashboard.markup import escape
from dashboard.reads import data

REFUSED = {  # statuses of what the service refused, and what mends it
    409: "Something stands in the way, as things are now.",
    413: "It is larger than the service takes.",
    422: "Something in it is not as the service needs it.",
    429: "Too much was asked in too short a time: wait a moment, then try again.",
}
ENDED = (401, 403, 404)  # statuses of what the viewer may not see, or no longer


def _sign_in() -> str:
    """A link of ours, as Streamlit's own buttons open another tab: after signing in the same address is shown."""
    here = urlsplit(st.context.url or "/").path or "/"
    if query := urlencode(st.query_params.to_dict()):
        here += f"?{query}"
    address = f"{signin.PATH}?{urlencode({'next': here})}"
    return (
        f'<a href="{escape(address)}" target="_self" style="display:inline-block;padding:.45rem 1.2rem;'
        'border-radius:.5rem;background:#1f5fbf;color:#fff;font-weight:600;text-decoration:none">Sign in</a>'
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
        return "There is no such thing here, or it is not yours", "The address may be mistyped, or it was deleted."
    if error.status in REFUSED:
        return "The service refused this", REFUSED[error.status]
    if error.status is None:
        return "The API does not answer", "It may still be starting. Try again in a moment."
    return "The API could not answer", "Its log says more."


def trouble(error: CalibrlError | SettingsError, key: str = "trouble") -> None:
    """An error, what it means and what mends it; the message is shown as plain text."""
    title, advice = _advice(error) if isinstance(error, CalibrlError) else ("A setting is wrong", "")
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
    """Nobody has signed in."""
    empty("Signed out", "The jobs of your projects are shown once you have signed in with an API key.")
    st.html(f'<div style="text-align:center">{_sign_in()}</div>')


@contextmanager
def explained(key: str = "trouble") -> Iterator[None]:
    """Shows an error of the API, or that nobody has signed in, in the place of a page, or of a part of one with a key
    of its own, instead of a stack trace."""
    try:
        yield
    except signin.SignedOut:
        signed_out()
    except (CalibrlError, SettingsError) as error:
        trouble(error, key)


def reread(job: Job) -> Job:
    """A job as it now stands, for a run of a fragment of its page: what is shared between viewers is shown to none who
    may not see the job. Once the viewer may not, the whole page is run anew, and says so."""
    try:
        return data.job(str(job.id))
    except signin.SignedOut:
        st.rerun()
    except CalibrlError as error:
        if error.status in ENDED:
            st.rerun()
        raise


@contextmanager
def tolerated() -> Iterator[None]:
    """For a live read: an error is one line above what was read before, and the next tick tries again. That the viewer
    may not see it, or no longer, is no such error."""
    try:
        yield
    except CalibrlError as error:
        if error.status in ENDED:
            raise
        st.warning("No answer from the API just now: what you see may be old. Trying again.", icon=":material/sync:")
        st.text(str(error))
