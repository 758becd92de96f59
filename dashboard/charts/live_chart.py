"""A chart that redraws in place.

`st.plotly_chart` makes a new chart whenever its data changes (its identity hashes the figure), which flickers and
throws the reader's zoom away at every tick. This small component hands the figure to `Plotly.react` instead. Plotly's
own script is served from the installed package by `streamlit_app.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.charts.figures import Figure
from dashboard.markup import heading

_mount = st.components.v2.component(
    "live_chart",
    html='<div class="live-chart"></div>',
    css=Path(__file__).with_suffix(".css").read_text(),
    js=Path(__file__).with_suffix(".js").read_text(),
    isolate_styles=False,
)


def card(title: str, hint: str, figure: Figure, *, key: str, on_pick: Callable[[Any], None] | None = None) -> None:
    """A chart under a plain title and a sentence on what to look for. `on_pick` gets the `customdata` of a point that
    was clicked, before the page is run anew."""
    with st.container(border=True, height="stretch", key=f"card-{key}"):
        st.html(heading(title, hint))
        if not figure.data:
            st.caption("Not measured in this run so far.")
            return
        data = {"figure": figure.json, "alt": f"{title}. {hint}", "name": key, "title": title}
        if on_pick is None:
            _mount(data=data, key=key)
        else:
            _mount(data=data, key=key, on_picked_change=lambda: on_pick(st.session_state[key]["picked"]))
