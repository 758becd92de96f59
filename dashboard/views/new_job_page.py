"""Opens the page of a job that a button submits."""

from collections.abc import Callable

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job
from dashboard.reads import service


def submit_and_open(submit: Callable[[], Job]) -> None:
    """Submit a job and open its page, or show the error below the button."""
    try:
        new = submit()
    except CalibrlError as error:
        st.text(str(error))
        return
    service.clear_job_caches()
    st.query_params.from_dict({"id": str(new.id)})
    st.rerun()
