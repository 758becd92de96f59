"""Initial values of the form of a new job: a preset with the fields that a reader has changed, a YAML text, a job."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from uuid import UUID

import streamlit as st
from pydantic import ValidationError

from calibrl import presets
from calibrl.schemas import CheckpointChoice, Job, job_spec_adapter
from calibrl.schemas.fault_texts import fault_text
from dashboard.forms.fork_dialog import InvalidChanges, parse_changes
from dashboard.forms.job_picker import readable
from dashboard.forms.schema import Schema
from dashboard.forms.schema_form import FORM
from dashboard.markup import as_markdown

KINDS = {"train": "Training", "evaluate": "Evaluation", "audit": "Audit"}  # kinds with a form, by choice of the type
# Fields that another preset leaves as the reader has changed them. The others belong to the algorithm.
KEPT = ("name", "project", "model", "data", "validation", "labels", "priority", "depends_on", "resources", "limits")
STARTS = f"{FORM}starts#"  # session key: initial values by form
SHOWN = f"{FORM}shown#"  # session key: kind, key and values of the form that was drawn last
REFUSED = f"{FORM}refused#"  # session key: why a YAML text was refused


def start_of(kind: str, key: str, first: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the initial values of a form. `first`: those of its preset.

    A form of another preset that was drawn before it hands on the fields in KEPT that the reader has changed.
    """
    starts: dict[str, dict[str, Any]] = st.session_state.setdefault(STARTS, {})
    start = starts.setdefault(key, deepcopy(dict(first)))
    before = st.session_state.get(SHOWN)
    if before is not None and before[0] == kind and before[1] != key:
        changed = _changed(schema, before[2], starts.get(before[1], {}))
        starts[key] = start = start | changed
        _forget(key, changed)
    return start


def remember(kind: str, key: str, value: Mapping[str, Any]) -> None:
    """Note the values of the form that is drawn."""
    st.session_state[SHOWN] = (kind, key, deepcopy(dict(value)))


def _changed(schema: Schema, value: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    now, before = (schema.trimmed(schema.root, dict(fields)) for fields in (value, start))
    return {name: now[name] for name in KEPT if name in now and now[name] != before.get(name)}


def _forget(key: str, fields: Mapping[str, Any]) -> None:
    """Let the widgets of these fields begin with their initial values again."""
    names = "|".join(map(re.escape, fields))
    widget = re.compile(rf"{re.escape(FORM + key)}:(?:{names})(?:[.:#].*)?", re.DOTALL)
    for name in [name for name in st.session_state if widget.fullmatch(str(name))]:
        del st.session_state[name]


def fill(spec: Mapping[str, Any]) -> None:
    """Let the form of a spec's kind start with this spec."""
    kind = str(spec["kind"])
    key = kind
    st.session_state["kind"] = KINDS[kind]
    if kind == "train":
        key = st.session_state["preset"] = _preset(str(spec["algorithm"].get("type")))
    widgets = [name for name in st.session_state if str(name).startswith(f"{FORM}{key}:")]
    for name in widgets:
        del st.session_state[name]
    st.session_state.setdefault(STARTS, {})[key] = {name: value for name, value in spec.items() if name != "kind"}
    st.session_state.pop(SHOWN, None)
    st.session_state.pop(REFUSED, None)


def _preset(algorithm: str) -> str:
    """The preset of an algorithm; its form has the same fields."""
    names = presets.names()
    return algorithm if algorithm in names else "calibrl"


def fill_from_yaml(text: str) -> None:
    """Fill the form in from a YAML text, or note why that is not possible; the form then stays as it is."""
    try:
        spec = parse_changes(text)
        if spec.get("kind") not in KINDS:
            raise InvalidChanges(f"kind: {spec.get('kind')!r} has no form. Give kind: {', '.join(KINDS)}")
        job_spec_adapter.validate_python(spec)
    except InvalidChanges as error:
        st.session_state[REFUSED] = [str(error)]
    except ValidationError as error:
        st.session_state[REFUSED] = [_fault(fault) for fault in error.errors()]
    else:
        fill(spec)


def _fault(fault: Mapping[str, Any]) -> str:
    """A fault with its field. The location begins with the kind of the job."""
    field = ".".join(map(str, fault["loc"][1:])) or "spec"
    return f"{field}: {fault_text(fault)}"


def fill_from_url() -> None:
    """Fill the form in from the job that the URL names: its spec (`clone`), or an evaluation of it (`evaluate`)."""
    step = st.query_params.get("checkpoint", "")
    checkpoint: CheckpointChoice = int(step) if step.isdecimal() else "best"
    for name, kinds in (("clone", tuple(KINDS)), ("evaluate", ("train",))):
        if (text := st.query_params.get(name)) is None:
            continue
        for used in (name, "checkpoint"):
            st.query_params.pop(used, None)
        try:
            job = readable(UUID(text))
        except ValueError:
            job = None
        if job is None:
            st.warning("The URL names a job that does not exist, or that you have no access to.")
        elif job.kind not in kinds:
            text = f"{name}: {job.name} is a job of kind {job.kind}. Name a job of kind {' or '.join(kinds)}."
            st.warning(as_markdown(text))
        else:
            fill(job.spec if name == "clone" else evaluation_of(job, checkpoint))


def evaluation_of(job: Job, checkpoint: CheckpointChoice) -> dict[str, Any]:
    """Return the spec of an evaluation of a training's checkpoint, on its validation data if it has any."""
    validation = job.spec.get("validation") or {}
    return {
        "kind": "evaluate",
        "name": f"{job.name}-evaluation"[:120],
        "project": job.project,
        "models": [{"from_job": str(job.id), "checkpoint": checkpoint}],
        "data": [validation.get("data") or {"builtin": "digits", "split": "test"}],
        "rewards": job.spec["rewards"],
        "prompts": job.spec["prompts"],
    }
