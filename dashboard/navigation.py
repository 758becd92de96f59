"""Navigation, and what every page shares. To add a page: a file in `app_pages/` and a line here."""

import streamlit as st

st.set_page_config(page_title="CalibRL", page_icon=":material/explore:", layout="wide")
page = st.navigation(
    [
        st.Page("app_pages/jobs.py", title="Jobs", icon=":material/list:", default=True),
        st.Page("app_pages/job.py", title="Job", url_path="job", visibility="hidden"),
    ],
    position="top",
)
page.run()
