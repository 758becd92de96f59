"""Dialog to fork a job: its spec with changes, from one of its checkpoints."""

from typing import Any

import streamlit as st
import yaml

from calibrl.client import CalibrlError
from calibrl.schemas import CheckpointChoice, Job
from dashboard.reads import service

EXAMPLE = "optimizer: {lr: 1.0e-5}\nsteps: 100"
FORM_FIELDS = ("name", "checkpoint")  # fields that are not in the spec


class InvalidChanges(Exception):
    """The text is not a YAML mapping."""


def parse_changes(text: str) -> dict[str, Any]:
    """Return the fields of a YAML mapping.

    Raises:
        InvalidChanges: the text is not a YAML mapping.
    """
    try:
        changes = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidChanges(f"Invalid YAML: {error}") from error
    if changes is None:
        return {}
    if not isinstance(changes, dict):
        raise InvalidChanges("Write fields of the config, such as steps: 100")
    return {str(name): value for name, value in changes.items()}


def _checkpoint_label(choice: CheckpointChoice) -> str:
    return {"best": "Best", "last": "Latest"}.get(str(choice), f"Step {choice}")


def form(job: Job) -> None:
    """Draw the form. On success the page of the new job opens."""
    checkpoints = service.checkpoints(job.id) if job.kind == "train" else []
    if job.kind == "train" and not checkpoints:
        st.write("This job has no checkpoint yet.")
        return
    steps: list[CheckpointChoice] = sorted((checkpoint.step for checkpoint in checkpoints), reverse=True)
    with st.form("fork", border=False):
        st.write("Creates a new job with the same config and your overrides. The original job is not affected.")
        name = st.text_input("Name", f"{job.name}-fork"[:120], max_chars=120)
        at_name = st.container()
        checkpoint: CheckpointChoice = "best"
        if checkpoints:
            checkpoint = st.selectbox("Start from checkpoint", ["best", "last", *steps], format_func=_checkpoint_label)
        at_checkpoint = st.container()
        text = st.text_area("Config overrides (YAML)", placeholder=EXAMPLE, height=160, help="null removes a field.")
        at_spec = st.container()
        submitted = st.form_submit_button("Fork", type="primary", key="fork-submit")
    if submitted:
        places = {"name": at_name, "checkpoint": at_checkpoint, "": at_spec}
        try:
            new = service.client().fork(job.id, checkpoint=checkpoint, changes=parse_changes(text), name=name or None)
        except InvalidChanges as error:
            at_spec.code(str(error), language=None, wrap_lines=True)  # contains user input
        except CalibrlError as error:
            _show_errors(error, places)
        else:
            service.clear_job_caches()
            st.query_params.from_dict({"id": str(new.id)})
            st.rerun()


def _show_errors(error: CalibrlError, places: dict[str, Any]) -> None:
    """Show each error at its field; errors of the config below the overrides. Messages are plain text."""
    if not error.errors:
        places[""].text(error.title)
        places[""].text(error.detail or "")
    for fault in error.errors:
        field = str(fault.get("field", "")).removeprefix("changes.")
        with places.get(field, places[""]).container(border=True, key=f"fault-{field.replace('.', '-')}"):
            if field not in FORM_FIELDS:
                st.code(field, language=None)
            st.text(str(fault.get("message", "")))


dialog = st.dialog("Fork this job", width="large")(form)
