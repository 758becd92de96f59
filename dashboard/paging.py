"""Paged lists. The session keeps, under the key of a list, the last id of each page before the current one."""

from uuid import UUID

import streamlit as st

from calibrl.schemas import Dataset, JobSummary, Page, StudySummary


def reset(key: str) -> None:
    """Show the first page: the filters have changed."""
    st.session_state[key] = []


def after(key: str) -> UUID | None:
    """Return the id after which the current page begins; None for the first page. The URL names it, as `key`."""
    if key not in st.session_state:
        st.session_state[key] = _named(st.query_params.get(key, ""))
    before: list[UUID] = st.session_state[key]
    if before:
        st.query_params[key] = str(before[-1])
    else:
        st.query_params.pop(key, None)
    return before[-1] if before else None


def _named(text: str) -> list[UUID]:
    try:
        return [UUID(text)]
    except ValueError:
        return []


def _back(before: list[UUID]) -> None:
    before.pop()


def buttons(
    key: str, page: Page[JobSummary] | Page[Dataset] | Page[StudySummary], *, back: str = "Newer", on: str = "Older"
) -> None:
    """Draw the buttons of the previous and the next page, if there are any."""
    before: list[UUID] = st.session_state[key]
    with st.container(horizontal=True):
        if before:
            st.button(back, icon=":material/arrow_back:", on_click=_back, args=(before,))
        if page.has_more:
            st.button(on, icon=":material/arrow_forward:", on_click=before.append, args=(page.data[-1].id,))
