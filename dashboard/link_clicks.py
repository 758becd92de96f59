"""Clicks on links of a list that is redrawn: see `link_clicks.js`."""

from pathlib import Path

import streamlit as st

_mount = st.components.v2.component("link_clicks", js=Path(__file__).with_suffix(".js").read_text())


def keep_clicks() -> None:
    """Open a link even if its list is redrawn while it is pressed. Call it once per page."""
    with st.container(key="link_clicks"):  # hidden by the style of all pages
        _mount(key="link_clicks_listener")
