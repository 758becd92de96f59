"""Dialog to edit a job: its name, labels and notes."""

import streamlit as st

from calibrl.schemas import Job, JobChanges
from calibrl.schemas.jobs import MAX_NOTES_LENGTH, parse_label
from dashboard.forms.changes import change
from dashboard.reads import service


def form(job: Job) -> None:
    """Draw the form. After a change the page runs again."""
    with st.form("edit", border=False):
        name = st.text_input("Name", job.name, max_chars=120)
        pairs = [f"{key}={value}" for key, value in job.labels.items()]
        labels = st.multiselect("Labels", pairs, pairs, accept_new_options=True, placeholder="key=value, then Enter")
        notes = st.text_area("Notes", job.notes, max_chars=MAX_NOTES_LENGTH, height=200, help="Plain text.")
        submitted = st.form_submit_button("Save", type="primary", key="edit-submit")
    if not submitted:
        return
    try:
        wanted = dict(map(parse_label, labels))
    except ValueError as error:
        st.text(str(error))
        return
    removed = dict.fromkeys(set(job.labels) - set(wanted))

    def save() -> Job:
        changes = JobChanges(name=name, labels={**wanted, **removed}, notes=notes)
        return service.client().edit(job.id, name=changes.name, labels=changes.labels, notes=changes.notes)

    change(save)


dialog = st.dialog("Edit this job", width="large")(form)
