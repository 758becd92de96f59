"""Views that the reader has saved by name: the address of a page with its choices."""

from urllib.parse import urlsplit

import streamlit as st

from calibrl.schemas import SavedView
from dashboard import addresses
from dashboard.forms.changes import change
from dashboard.markup import as_markdown, escape
from dashboard.reads import administration, service


def draw() -> None:
    """Draw the saved views as links, with a field that saves the page as it is. Its link can be shared."""
    me = service.me()
    with st.popover("Views", icon=":material/bookmark:"):
        found = administration.views()
        for view in found:
            _view(view, may_change=me.scope == "write")
        if not found:
            st.caption("No saved views")
        if me.scope == "write":
            _save()


def _view(view: SavedView, *, may_change: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        # "./": without it, the browser opens an address without a page at the page that is open
        st.html(f'<a href="./{escape(view.address)}" target="_self">{escape(view.name)}</a>')
        if may_change and st.button(
            f"Remove view {as_markdown(view.name)}",
            icon=":material/delete:",
            key=f"drop-view-{view.name}",
            type="tertiary",
        ):
            change(lambda: service.client().remove_view(view.name))


def _save() -> None:
    name = st.text_input("Name", key="view-name", max_chars=80, placeholder="Runs of this week")
    if st.button("Save this page", disabled=not name.strip(), key="save-view"):
        change(lambda: service.client().put_view(name.strip(), here()))


def here() -> str:
    """Return the address of the page with its choices, relative to the dashboard."""
    return urlsplit(st.context.url or "").path.rpartition("/")[2] + addresses.choices()
