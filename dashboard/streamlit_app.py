"""The app of `streamlit run`: the pages of `navigation.py`, sign-in, downloads, news of jobs, and Plotly's script for
`live_chart.js`. Without a session it answers the sign-in only."""

from pathlib import Path

import plotly
import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from dashboard import addresses, news, signin
from dashboard.reads import downloads
from dashboard.signed_in_only import SignedInOnly

app = st.App(
    Path(__file__).with_name("navigation.py"),
    middleware=[Middleware(SignedInOnly)],
    routes=[
        *signin.routes,
        *addresses.routes,
        *downloads.routes,
        *news.routes,
        Mount("/plotly", StaticFiles(directory=Path(plotly.__file__).parent / "package_data")),
    ],
)
