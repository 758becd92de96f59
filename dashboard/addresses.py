"""Addresses of pages. Values in the URL that no option of a widget has: the page says so. Streamlit would replace
them silently. The path /job/ID leads to the page of the job."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dashboard.markup import as_markdown

KEPT = "kept-"  # session key prefix: the choice of a widget on a page that is not shown
NOTE = "unknown-"  # session key prefix: a value in the URL that no option has


def check(key: str, options: Iterable[Any], default: Any, format_func: Any = str) -> None:
    """Warn of a value in the URL that no option of a widget has, until the reader selects another option.

    An option's own name, in any case, is accepted in place of its label. Call it before the widget `key` is drawn.
    """
    given = st.query_params.get(key)
    if given is not None:
        known = {text.casefold(): option for option in options for text in (str(option), format_func(option))}
        if given.casefold() in known:
            st.session_state.pop(NOTE + key, None)
            if given != format_func(known[given.casefold()]):
                st.session_state[key] = known[given.casefold()]
        else:
            st.session_state[NOTE + key] = given
    if st.session_state.get(key, default) != default:
        st.session_state.pop(NOTE + key, None)
    if unknown := st.session_state.get(NOTE + key):
        st.warning(
            as_markdown(f"The URL asks for {key} {unknown!r}, which does not exist. Shown: {format_func(default)}.")
        )


def keep(key: str, options: Iterable[Any], default: Any, format_func: Any = str) -> None:
    """Restore the choice of a widget that is not bound to the URL: from the URL, or as it was when the page was left.
    Call it before the widget `key` is drawn, and `note` after it.

    Streamlit's own binding resets the widget when the browser's Back leads to a page without the parameter.
    """
    check(key, options, default, format_func)
    if key not in st.session_state:
        known = {format_func(option): option for option in options}
        before = st.session_state.get(KEPT + key, default)
        st.session_state[key] = known.get(st.query_params.get(key, ""), before)


def note(key: str, value: Any, default: Any, format_func: Any = str) -> None:
    """Keep the choice for the next visit of the page, and write it to the URL if it is not the default."""
    st.session_state[KEPT + key] = value
    if value == default:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != format_func(value):
        st.query_params[key] = format_func(value)


def choices() -> str:
    """Return the query of the page with its `?`, with all values of each parameter; empty if it has none."""
    pairs = [(key, value) for key in st.query_params for value in st.query_params.get_all(key)]
    return f"?{urlencode(pairs)}" if pairs else ""


async def _open_job(request: Request) -> Response:
    return RedirectResponse(f"../job?id={request.path_params['job_id']}", 307)


routes = [Route("/job/{job_id:uuid}", _open_job, methods=["GET"])]
