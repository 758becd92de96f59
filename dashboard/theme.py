"""A choice of theme, in the place of the one in Streamlit's own menu, which is hidden."""

from pathlib import Path

import streamlit as st

PATHS = ("./", "job", "new", "compare", "queue", "evaluations", "data", "settings")  # of the pages in navigation.py

_mount = st.components.v2.component(
    "theme",
    html="""<label class="theme">Theme <select>
<option value="System">as the system has it</option><option value="Light">light</option>
<option value="Dark">dark</option></select></label>""",
    css=""".theme select{margin-left:.5rem;padding:.35rem .6rem;border:1px solid var(--st-border-color);
border-radius:.5rem;background:var(--st-secondary-background-color);color:var(--st-text-color);font:inherit}""",
    js=Path(__file__).with_suffix(".js").read_text(),
    isolate_styles=False,
)


def choice() -> None:
    """A choice that this browser keeps."""
    _mount(data={"paths": PATHS}, key="theme")
