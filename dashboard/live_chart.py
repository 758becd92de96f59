"""A chart that redraws in place.

`st.plotly_chart` makes a new chart whenever its data changes (its identity hashes the figure), which flickers and
throws the reader's zoom away at every tick. This small component hands the figure to `Plotly.react` instead. Plotly's
own script is served from the installed package by `streamlit_app.py`.
"""

from pathlib import Path

import streamlit as st

from dashboard.charts import Figure
from dashboard.markup import heading

_mount = st.components.v2.component(
    "live_chart",
    html='<div class="live-chart"></div>',
    js=Path(__file__).with_suffix(".js").read_text(),
    isolate_styles=False,
)


def card(title: str, hint: str, figure: Figure, *, key: str) -> None:
    """A chart under a plain title and a sentence on what to look for."""
    with st.container(border=True, height="stretch", key=f"card-{key}"):
        st.html(heading(title, hint))
        if figure["data"]:
            _mount(data={"figure": figure, "alt": f"{title}. {hint}", "name": key}, key=key)
        else:
            st.caption("Nothing reported yet.")
