"""Form of a pipeline: warm-up, training and evaluation, which are submitted together."""

from collections.abc import Mapping
from typing import Any, get_args

import streamlit as st
import yaml

from calibrl.client import CalibrlError
from calibrl.presets.chain import TINY, FirstAlgorithm, chain
from calibrl.schemas import Job
from dashboard.reads import catalogue, service

BUILT_IN = {split: f"Built-in digits, {split} split" for split in ("train", "validation", "test")}
NONE = "None"
INTRODUCTION = (
    "Three jobs in one submission: an SFT warm-up until the model answers some prompts correctly (tiny-vlm only), the "
    "training, and an evaluation of the model before and after it. Each job starts when the one before has succeeded."
)
Data = Mapping[str, Any]


def fill_in(projects: list[str]) -> list[dict[str, Any]]:
    """Draw the fields. Return the specs of the pipeline."""
    st.caption(INTRODUCTION)
    with st.container(border=True):
        name = st.text_input("Name", "my-first", max_chars=60, key="chain-name", help="Beginning of the jobs' names")
        project = st.selectbox("Project", projects, key="chain-project")
        model = st.text_input(
            "Model", TINY, max_chars=500, key="chain-model",
            help="tiny-vlm (random weights, for a first try), a model of the Hugging Face hub (org/name), or a folder.",
        )  # fmt: skip
        algorithm: FirstAlgorithm = st.selectbox(
            "Algorithm", get_args(FirstAlgorithm), key="chain-algorithm", help="calibrl needs data with experts."
        )
        uploaded = {str(each.id): each.name for each in catalogue.datasets(project).data}
        data = _data("Training data", uploaded, "train", needed=True)
        assert data is not None
        own = "builtin" not in data
        validation = _data(
            "Validation data", uploaded, "validation", own=own, help="The best checkpoint on it is evaluated."
        )
        test = _data("Evaluation data", uploaded, "test", own=own, help="Without it there is no evaluation.")
        if not validation:
            st.caption("Without validation data, the accuracy during the training is not measured.")
        if not test:
            st.caption("Without evaluation data, the pipeline has no evaluation.")
    specs = chain(name.strip(), model.strip(), dict(data), validation, test, algorithm=algorithm)
    return [{"kind": spec.pop("kind"), "name": spec.pop("name"), "project": project, **spec} for spec in specs]


def _data(
    title: str,
    uploaded: Mapping[str, str],
    split: str,
    *,
    needed: bool = False,
    own: bool = False,
    help: str | None = None,
) -> dict[str, Any] | None:
    """Draw the choice of a source of data: an uploaded dataset of the project, the built-in one, or none, which is the
    default if the training data is the reader's own.
    """
    names = {**({} if needed else {NONE: NONE}), split: BUILT_IN[split], **uploaded}
    key = f"chain-{title.lower().replace(' ', '-')}{'-own' if own else ''}"  # another key, for another default
    first = list(names).index(NONE if own else split)
    chosen = st.selectbox(title, list(names), first, format_func=names.__getitem__, key=key, help=help)
    if chosen == NONE:
        return None
    return {"builtin": "digits", "split": split} if chosen == split else {"dataset": chosen}


def code(specs: list[dict[str, Any]]) -> None:
    """Draw the pipeline as YAML."""
    st.code(yaml.safe_dump(specs, sort_keys=False, allow_unicode=True), language=None, wrap_lines=True)
    st.caption("Save it to a file, then `calibrl submit FILE`.")


def submit(specs: list[dict[str, Any]]) -> Job:
    """Submit the pipeline. Return its training, or its first job.

    Raises:
        CalibrlError: the pipeline is refused; no job is created.
    """
    jobs = service.client().submit_pipeline(specs)
    service.clear_job_caches()
    trained = [job for job in jobs if job.kind == "train"]
    return trained[-1] if trained else jobs[0]


def faults(error: CalibrlError) -> list[dict[str, str]]:
    """Return the faults of a refused pipeline, by field."""
    return [dict(fault) for fault in error.errors] or [{"field": "pipeline", "message": str(error)}]
