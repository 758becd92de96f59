"""Changes that a reader requests: the page runs again, or shows why the service refused."""

from collections.abc import Callable

import streamlit as st
from pydantic import ValidationError

from calibrl.client import CalibrlError
from calibrl.schemas.fault_texts import fault_text
from dashboard.markup import as_markdown
from dashboard.reads import administration, catalogue, service

NOTICE = "change-notice"  # session key: what the last change did


def show_notice() -> None:
    """Draw what the last change did, once."""
    if notice := st.session_state.pop(NOTICE, None):
        st.success(as_markdown(notice))


def change(act: Callable[[], object], done: str = "") -> None:
    """Make a change and run the page again, or show why it was refused. `done`: the text for `show_notice`."""
    try:
        act()
    except ValidationError as error:
        for fault in error.errors():
            st.text(f"{'.'.join(map(str, fault['loc']))}: {fault_text(fault)}")
        return
    except CalibrlError as error:
        st.text(str(error))
        return
    service.clear_job_caches()
    catalogue.forget_access()
    administration.forget()
    if done:
        st.session_state[NOTICE] = done
    st.rerun()
