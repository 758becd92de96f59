"""Dialog to edit a job: its name, labels and notes."""

import streamlit as st
from pydantic import ValidationError

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobChanges
from calibrl.schemas.fault_texts import fault_text
from calibrl.schemas.jobs import MAX_NOTES_LENGTH
from dashboard.reads import service


def form(job: Job) -> None:
    """Draw the form. After a change the page runs again."""
    with st.form("edit", border=False):
        name = st.text_input("Name", job.name, max_chars=120)
        pairs = [f"{key}:{value}" for key, value in job.labels.items()]
        labels = st.multiselect("Labels", pairs, pairs, accept_new_options=True, placeholder="key:value, then Enter")
        notes = st.text_area("Notes", job.notes, max_chars=MAX_NOTES_LENGTH, height=200, help="Plain text.")
        submitted = st.form_submit_button("Save", type="primary", key="edit-submit")
    if not submitted:
        return
    if wrong := [text for text in labels if ":" not in text]:
        st.text(f"Not a label: {', '.join(wrong)}. Write key:value, such as team:vision.")
        return
    wanted = {key.strip(): value.strip() for key, _, value in (text.partition(":") for text in labels)}
    removed = dict.fromkeys(set(job.labels) - set(wanted))
    try:
        JobChanges(name=name, labels={**wanted, **removed}, notes=notes)
        service.client().edit(job.id, name=name, labels={**wanted, **removed}, notes=notes)
    except ValidationError as error:
        for fault in error.errors():
            st.text(f"{'.'.join(map(str, fault['loc']))}: {fault_text(fault)}")
    except CalibrlError as error:
        st.text(str(error))
    else:
        service.clear_job_caches()
        st.rerun()


dialog = st.dialog("Edit this job", width="large")(form)
