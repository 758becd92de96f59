"""Links of a list that is redrawn, the link back to the list, and steps of the history: see `link_clicks.js`."""

from pathlib import Path

import streamlit as st

_mount = st.components.v2.component("link_clicks", js=Path(__file__).with_suffix(".js").read_text())


def keep_clicks() -> None:
    """Listen to clicks on links and to changes of the address. Call it once per page."""
    with st.container(key="link_clicks"):  # hidden by the style of all pages
        _mount(key="link_clicks_listener")
