"""Lists, a page at a time. Each has a key of its own, under which the session keeps the last id of each page before the
one on show."""

from uuid import UUID

import streamlit as st

from calibrl.schemas import Dataset, JobSummary, Page


def begin(key: str) -> None:
    """Show the first page again: another list is asked for."""
    st.session_state[key] = []


def after(key: str) -> UUID | None:
    """The id that the page on show comes after; None for the first page."""
    before: list[UUID] = st.session_state.setdefault(key, [])
    return before[-1] if before else None


def _back(before: list[UUID]) -> None:
    before.pop()


def buttons(key: str, shown: Page[JobSummary] | Page[Dataset], *, back: str = "Newer", on: str = "Older") -> None:
    """Ways to the pages around this one, as far as there are some."""
    before: list[UUID] = st.session_state[key]
    with st.container(horizontal=True):
        if before:
            st.button(back, icon=":material/arrow_back:", on_click=_back, args=(before,))
        if shown.has_more:
            st.button(on, icon=":material/arrow_forward:", on_click=before.append, args=(shown.data[-1].id,))
