"""A chart that redraws in place.

`st.plotly_chart` makes a new chart when its data changes, because its identity is a hash of the figure. The chart would
flicker and lose the reader's zoom at every tick. This component passes the figure to `Plotly.react` instead.
`streamlit_app.py` serves Plotly's script from the installed package.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.charts.figures import ChartFigure
from dashboard.markup import heading

_mount = st.components.v2.component(
    "live_chart",
    html='<div class="live-chart"></div>',
    css=Path(__file__).with_suffix(".css").read_text(),
    js=Path(__file__).with_suffix(".js").read_text(),
    isolate_styles=False,
)


NO_DATA = "No data yet"
NOT_REPORTED = "Not reported by this run"


def card(
    title: str,
    hint: str,
    figure: ChartFigure,
    *,
    key: str,
    empty: str = NO_DATA,
    on_pick: Callable[[Any], None] | None = None,
) -> None:
    """Draw a chart below its title and a hint. `empty`: the text in place of a figure without data.

    `on_pick` is called with the `customdata` of a clicked point, before the page runs again.
    """
    with st.container(border=True, height="stretch", key=f"card-{key}"):
        st.html(heading(title, hint))
        chart(title, hint, figure, key=key, empty=empty, on_pick=on_pick)


def chart(
    title: str,
    hint: str,
    figure: ChartFigure,
    *,
    key: str,
    empty: str = NO_DATA,
    on_pick: Callable[[Any], None] | None = None,
) -> None:
    """Draw the chart of a card. Screen readers read the title and the hint; `empty` and `on_pick` are as in `card`."""
    if not figure.data:
        st.caption(empty)
        return
    data = {"figure": figure.json, "alt": f"{title}. {hint.replace('`', '')}", "name": key, "title": title}
    if on_pick is None:
        _mount(data=data, key=key)
    else:
        _mount(data=data, key=key, on_picked_change=lambda: on_pick(st.session_state[key]["picked"]))
