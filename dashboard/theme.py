"""Choice of the theme, in place of Streamlit's own menu, which is hidden."""

from pathlib import Path

import streamlit as st

PATHS = (
    "./",
    "job",
    "new",
    "compare",
    "queue",
    "evaluations",
    "studies",
    "data",
    "settings",
    "admin",
)  # of the pages in navigation.py

_mount = st.components.v2.component(
    "theme",
    html="""<label class="theme">Theme <select>
<option value="System">System default</option><option value="Light">Light</option>
<option value="Dark">Dark</option></select></label>""",
    css=""".theme select{margin-left:.5rem;padding:.35rem .6rem;border:1px solid var(--st-border-color);
border-radius:.5rem;background:var(--st-secondary-background-color);color:var(--st-text-color);font:inherit}""",
    js=Path(__file__).with_suffix(".js").read_text(),
    isolate_styles=False,
)


def choice() -> None:
    """Draw the choice of the theme; the browser stores it."""
    _mount(data={"paths": PATHS}, key="theme")
