"""Navigation and page settings. To add a page: a file in `app_pages/` and a line here."""

from pathlib import Path

import streamlit as st

from dashboard.link_clicks import keep_clicks
from dashboard.views import notifications

HERE = Path(__file__).parent
# Selected items differ by frame and background: in the dark theme Streamlit's text colour has too little contrast.
SELECTED = (
    "button[data-selected='true'],button[data-selected='true'] *,[role=tab][aria-selected='true'] *,"
    "[data-testid='stSlider'] *"
)

st.set_page_config(page_title="CalibRL", page_icon=str(HERE / "icon.svg"), layout="wide")
# Streamlit marks a link that has the focus by a pale background only.
FOCUSED = "[data-testid='stTopNavLink']:focus-visible,[data-testid='stPageLink'] a:focus-visible,a:focus-visible"
st.html(
    f"<style>{SELECTED}{{color:inherit!important}}.st-key-link_clicks,.st-key-notifications{{display:none}}"
    f"{FOCUSED}{{outline:2px solid currentColor!important;outline-offset:2px}}</style>"
)
st.logo(str(HERE / "logo.svg"))
page = st.navigation(
    [
        st.Page("app_pages/jobs.py", title="Jobs", icon=":material/list:", default=True),
        st.Page("app_pages/job.py", title="Job", url_path="job", visibility="hidden"),
        st.Page("app_pages/new_job.py", title="New job", icon=":material/add:", url_path="new"),
        st.Page("app_pages/compare.py", title="Compare", icon=":material/compare_arrows:", url_path="compare"),
        st.Page("app_pages/queue.py", title="Queue", icon=":material/format_list_numbered:", url_path="queue"),
        st.Page("app_pages/evaluations.py", title="Evaluations", icon=":material/grading:", url_path="evaluations"),
        st.Page("app_pages/studies.py", title="Studies", icon=":material/science:", url_path="studies"),
        st.Page("app_pages/datasets.py", title="Datasets", icon=":material/database:", url_path="data"),
        st.Page("app_pages/admin.py", title="Administration", url_path="admin", visibility="hidden"),
        st.Page("app_pages/settings.py", title="Settings", icon=":material/settings:", url_path="settings"),
    ],
    position="top",
)
st.set_page_config(page_title=f"{page.title} · CalibRL")
keep_clicks()
notifications.listen()
page.run()
