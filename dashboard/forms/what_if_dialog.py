"""Dialog of a what-if: the checkpoint, and the variants whose updates are compared."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job
from dashboard.forms.fork_dialog import InvalidChanges, parse_changes
from dashboard.reads import service

EXAMPLE = "slope 0: {negative_slope: 0}\ngrpo: {type: grpo}"


def form(job: Job) -> None:
    """Draw the form. On success the page of the new job opens."""
    steps = sorted((checkpoint.step for checkpoint in service.checkpoints(job.id)), reverse=True)
    if not steps:
        st.write("This job has no checkpoint yet.")
        return
    with st.form("what-if", border=False):
        st.write(
            "Creates a job that makes the update after a checkpoint with these settings, with other settings and with "
            "other algorithms, and compares them. It trains nothing."
        )
        checkpoint = st.selectbox("Checkpoint", steps, format_func=lambda step: f"Step {step}")
        text = st.text_area(
            "Variants (YAML)",
            placeholder=EXAMPLE,
            height=160,
            help="Changes of the algorithm's settings by name. Empty: those that the algorithm names.",
        )
        below = st.container()
        submitted = st.form_submit_button("Compare", type="primary", key="what-if-submit")
    if submitted:
        try:
            variants = _variants(text)
            new = service.client().what_if(job.id, checkpoint=checkpoint, variants=variants)
        except (InvalidChanges, CalibrlError) as error:
            below.code(_explained(error), language=None, wrap_lines=True)  # contains user input
        else:
            service.clear_job_caches()
            st.query_params.from_dict({"id": str(new.id)})
            st.rerun()


def _variants(text: str) -> Mapping[str, Mapping[str, Any]] | None:
    found = parse_changes(text)
    if wrong := [name for name, changes in found.items() if not isinstance(changes, dict)]:
        raise InvalidChanges(f"{wrong[0]}: write settings of the algorithm in braces, such as {{negative_slope: 0}}")
    return found or None


def _explained(error: Exception) -> str:
    """Return an error with its fields, one per line."""
    if not isinstance(error, CalibrlError) or not error.errors:
        return str(error)
    return "\n".join(f"{fault.get('field', '')}: {fault.get('message', '')}" for fault in error.errors)


dialog = st.dialog("What if", width="large")(form)
