"""Paged lists. The session keeps, under the key of a list, the last id of each page before the current one."""

from uuid import UUID

import streamlit as st

from calibrl.schemas import Dataset, JobSummary, Page, StudySummary

WRITTEN = "written-"  # session key prefix: what `after` wrote to the URL


def reset(key: str) -> None:
    """Show the first page: the filters have changed."""
    st.session_state[key] = []


def after(key: str) -> UUID | None:
    """Return the id after which the current page begins; None for the first page. The URL names it, as `key`.

    A URL that names another page than the session, such as an opened link, wins.
    """
    before: list[UUID] = st.session_state.setdefault(key, [])
    written = st.session_state.get(WRITTEN + key)
    if (named := st.query_params.get(key)) != written:
        before = st.session_state[key] = _known(before, _id(named))
    now = str(before[-1]) if before else None
    if now is None:
        st.query_params.pop(key, None)
    elif now != named:
        st.query_params[key] = now
    st.session_state[WRITTEN + key] = now
    return before[-1] if before else None


def _id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _known(before: list[UUID], last: UUID | None) -> list[UUID]:
    """The pages before one that the URL names, as far as they are known."""
    if last is None:
        return []
    return before[: before.index(last) + 1] if last in before else [last]


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
