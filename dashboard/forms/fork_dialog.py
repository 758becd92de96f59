"""Taking a job's spec up again, from one of its checkpoints and with changes."""

from typing import Any

import streamlit as st
import yaml

from calibrl.client import CalibrlError
from calibrl.schemas import CheckpointChoice, Job
from dashboard.reads import data

EXAMPLE = "optimizer: {lr: 1.0e-5}\nsteps: 100"
OWN = ("name", "checkpoint")  # fields of the form that are not of the spec


class NotChanges(Exception):
    """The text is no mapping in YAML."""


def changes_of(text: str) -> dict[str, Any]:
    """What the YAML says.

    Raises:
        NotChanges: it says no mapping.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise NotChanges(f"This is no YAML: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise NotChanges("Write fields of the spec, such as steps: 100.")
    return {str(name): value for name, value in found.items()}


def _named(choice: CheckpointChoice) -> str:
    return {"best": "The best", "last": "The newest"}.get(str(choice), f"Step {choice}")


def form(job: Job) -> None:
    """A form for the new job; when it is submitted the new job's page opens."""
    kept = data.checkpoints(job.id) if job.kind == "train" else []
    if job.kind == "train" and not kept:
        st.write("It has no checkpoint yet that another job could begin with.")
        return
    steps: list[CheckpointChoice] = sorted((checkpoint.step for checkpoint in kept), reverse=True)
    with st.form("fork", border=False):
        st.write("A new job with the same spec, but for the changes. This one goes on as it is.")
        name = st.text_input("Name", f"{job.name}-fork"[:120], max_chars=120)
        at_name = st.container()
        checkpoint: CheckpointChoice = "best"
        if kept:
            checkpoint = st.selectbox("It begins with", ["best", "last", *steps], format_func=_named)
        at_checkpoint = st.container()
        text = st.text_area(
            "Changes of the spec, in YAML", placeholder=EXAMPLE, height=160, help="null removes a field."
        )
        at_spec = st.container()
        asked = st.form_submit_button("Fork", type="primary", key="fork-submit")
    if asked:
        places = {"name": at_name, "checkpoint": at_checkpoint, "": at_spec}
        try:
            new = data.client().fork(job.id, checkpoint=checkpoint, changes=changes_of(text), name=name or None)
        except NotChanges as error:
            at_spec.code(str(error), language=None, wrap_lines=True)  # it repeats what was typed
        except CalibrlError as error:
            _explain(error, places)
        else:
            data.changed()
            st.query_params.from_dict({"id": str(new.id)})
            st.rerun()


def _explain(error: CalibrlError, places: dict[str, Any]) -> None:
    """Each fault at the field that it names; of the spec, below the changes. Messages are plain text."""
    if not error.errors:
        places[""].text(error.title)
        places[""].text(error.detail or "")
    for fault in error.errors:
        field = str(fault.get("field", "")).removeprefix("changes.")
        with places.get(field, places[""]).container(border=True, key=f"fault-{field.replace('.', '-')}"):
            if field not in OWN:
                st.code(field, language=None)
            st.text(str(fault.get("message", "")))


dialog = st.dialog("Fork this job", width="large")(form)
