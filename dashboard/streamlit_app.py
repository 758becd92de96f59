"""What `streamlit run` serves: the pages of `navigation.py`, and beside them the sign-in, files to download, and
Plotly's script for `live_chart.js`."""

from pathlib import Path

import plotly
import streamlit as st
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from dashboard import signin
from dashboard.reads import downloads

app = st.App(
    Path(__file__).with_name("navigation.py"),
    routes=[
        *signin.routes,
        *downloads.routes,
        Mount("/plotly", StaticFiles(directory=Path(plotly.__file__).parent / "package_data")),
    ],
)
