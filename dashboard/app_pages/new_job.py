"""SpecForm for a new job, generated from the schema of the spec, beside its plan."""

import json
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st
import yaml

from calibrl import presets
from calibrl.client import CalibrlError
from calibrl.schemas import AuditSpec, Dataset, EvaluateSpec, JobPlan, JobSummary, TrainSpec
from dashboard import addresses, states
from dashboard.forms import chain_form, form_start
from dashboard.forms.job_picker import Wanted
from dashboard.forms.schema import Schema, label
from dashboard.forms.schema_form import FORM, SpecForm
from dashboard.markup import as_markdown, heading
from dashboard.reads import catalogue, service
from dashboard.views import plan_summary

PIPELINE = "Pipeline"
TYPES = TRAINING, EVALUATION, AUDIT, _ = (*form_start.KINDS.values(), PIPELINE)
FIRST_PRESET = "calibrl"
LONGEST_YAML = 100_000  # characters
IMPORTED = "kind: train\nname: my-first-job\nmodel: ..."
SCHEMAS = {
    "train": Schema(TrainSpec.model_json_schema()),
    "evaluate": Schema(EvaluateSpec.model_json_schema()),
    "audit": Schema(AuditSpec.model_json_schema()),
}
NAMED = {
    "builtin": "Built-in",
    "path": "File or folder on the server",
    "hub": "Hugging Face hub",
    "dataset": "Dataset of this project",
    "from_job": "Checkpoint of a job",
    **SCHEMAS["train"].titles("algorithm"),
}
COMMON = (
    "guidance_coef",
    "negative_slope",
    "mini_batches",
    "kl_coef",
    "checkpoint",
    "split",
    "rows",
    "weight",
    "every_steps",
    "samples",
)
INTRODUCTION = "First run? Choose the type Pipeline: warm-up, training and evaluation in one submission."
FIRST_EVALUATION: dict[str, Any] = {
    "name": "my-evaluation",
    "models": [{"from_job": None}],  # the latest job, if there is one
    "data": [{"builtin": "digits", "split": "test"}],
}
FIRST_AUDIT: dict[str, Any] = {
    "name": "my-audit",
    "model": {"from_job": None},  # the latest job, if there is one
    "data": {"builtin": "digits", "split": "train"},
}
AUDITED = ("max_nll", "rewrite", "rollout.group_size", "rollout.max_completion_tokens")
MAIN = ("steps", "epochs", "prompts_per_step", "rollout.group_size", "rollout.max_completion_tokens", "optimizer.lr")
# The plan stays visible beside the long form on a wide screen.
STICKY = (
    "<style>@media (min-width:641px){.stColumn:has(> div .st-key-plan),.stColumn:has(.st-key-plan)"
    "{position:sticky;top:4rem;align-self:flex-start;max-height:calc(100vh - 5rem);overflow-y:auto}}</style>"
)
FOLDED: dict[str, dict[str, tuple[str, ...]]] = {  # sections that are folded at first
    "train": {
        "Rollouts and prompts": ("rollout", "prompts"),
        "Optimizer and batches": (
            "optimizer",
            "micro_batch_tokens",
            "micro_batch_rows",
            "precision",
            "parallel",
            "shard_size",
            "cpu_offload",
            "seed",
        ),
        "Order and loading of data": ("shuffle_data", "curriculum", "unearnable", "data_workers"),
        "Checkpoints, samples and diagnostics": ("checkpoints", "samples", "diagnostics"),
        "Health rules": ("health",),
        "Queue, labels and limits": ("priority", "labels", "depends_on", "resources", "limits"),
    },
    "evaluate": {
        "Sampling and prompts": ("rollout", "prompts", "image_changes", "precision", "seed"),
        "Queue, labels and limits": ("priority", "labels", "depends_on", "resources", "limits"),
    },
    "audit": {
        "Gaps and guidance": ("algorithm",),
        "Sampling and prompts": ("rollout", "prompts", "precision", "seed"),
        "Queue, labels and limits": ("priority", "labels", "depends_on", "resources", "limits"),
    },
}


def _start() -> tuple[str, str, dict[str, Any]]:
    """Draw the choice of type and preset. Return the kind of job, the key of its form, and the preset's values; all
    empty for a pipeline."""
    addresses.keep("kind", TYPES, TRAINING)
    addresses.keep("preset", presets.names(), FIRST_PRESET, _preset_title)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control("Type", TYPES, required=True, key="kind")
        addresses.note("kind", kind, TRAINING)
        if kind == PIPELINE:
            return "", "", {}
        if kind == EVALUATION:
            return "evaluate", "evaluate", FIRST_EVALUATION
        if kind == AUDIT:
            return "audit", "audit", FIRST_AUDIT
        chosen = st.selectbox(
            "Preset",
            presets.names(),
            format_func=_preset_title,
            key="preset",
            help="A complete config per algorithm. Another preset keeps what you have changed of name, project, model, "
            "data, validation and queue settings. It sets the rest.",
        )
        addresses.note("preset", chosen, FIRST_PRESET, _preset_title)
    st.caption(as_markdown(presets.summary(chosen)))
    st.caption(INTRODUCTION)
    return "train", chosen, yaml.safe_load(presets.text(chosen))


def _preset_title(name: str) -> str:
    return NAMED.get(name, label(name))


def _import() -> None:
    """Draw the fields for a YAML text that fills the form in."""
    with st.expander("Import YAML", icon=":material/upload_file:"):
        file = st.file_uploader("File", ["yaml", "yml", "json"], max_upload_size=1, key="import-file")
        pasted = st.text_area(
            "Or paste a spec", max_chars=LONGEST_YAML, height=160, key="import-text", placeholder=IMPORTED
        )
        text = file.getvalue().decode(errors="replace") if file else pasted
        st.button("Fill in the form", disabled=not text.strip(), on_click=form_start.fill_from_yaml, args=(text,))
        for fault in st.session_state.get(form_start.REFUSED, ()):
            st.code(fault, language=None, wrap_lines=True)


def _job_option(job: JobSummary) -> str:
    return f"{job.name} ({str(job.id)[:8]}, {job.status.value})"


def _offer(form: SpecForm, project: str) -> None:
    """Offer the latest jobs and datasets of a project as options of fields, and the others by search."""
    wanted = {"from_job": Wanted("train", project), "depends_on": Wanted(None, project)}
    for field, jobs in wanted.items():
        form.offered[field] = {str(job.id): _job_option(job) for job in jobs.latest()}
        form.search[field] = partial(_found_jobs, jobs)
    form.offered["dataset"] = _dataset_options(catalogue.datasets(project).data)
    form.search["dataset"] = partial(_found_datasets, project)


def _found_jobs(wanted: Wanted, text: str) -> dict[str, str]:
    return {str(job.id): _job_option(job) for job in wanted.find(text)}


def _found_datasets(project: str, text: str) -> dict[str, str]:
    return _dataset_options(catalogue.find_datasets(project, text))


def _dataset_options(datasets: list[Dataset]) -> dict[str, str]:
    return {str(dataset.id): f"{dataset.name} ({str(dataset.id)[:8]})" for dataset in datasets}


def _folded(form: SpecForm, kind: str) -> None:
    for title, sections in FOLDED[kind].items():
        with st.expander(title):
            form.rest(*sections)


def _card(form: SpecForm, title: str, hint: str, *fields: str) -> None:
    with st.container(border=True):
        st.html(heading(title, hint))
        form.fields(*fields)


def _fill_in(form: SpecForm, kind: str) -> None:
    """Draw all widgets of a spec, in the order in which most people need them."""
    form.value["kind"] = kind
    with st.container(border=True):
        form.fields("name", "project")
    _offer(form, str(form.value["project"]))
    if kind == "evaluate":
        _card(form, "Models", "Each model is measured on every dataset.", "models")
        _card(form, "Data", "Use data that the models were not trained on, or the results are too good.", "data")
    elif kind == "audit":
        _card(form, "Model", "The policy that a training would start from", "model")
        _card(form, "Data", "Rows with experts", "data")
        _card(form, "Audit", "Limits of the verdicts", *AUDITED)
    else:
        _card(form, "Model", "Initial weights", "model")
        _card(form, "Data", "Prompts, and experts if the algorithm uses them", "data")
        _card(form, "Training", "Algorithm and schedule", "algorithm", *MAIN, "resources.machines", "resources.gpus")
        _card(form, "Validation", "Accuracy on data that training never uses", "validation")
    _card(form, "Rewards", "Weighted sum of verifier scores", "rewards")
    _folded(form, kind)


def _code(spec: Mapping[str, Any]) -> None:
    """Draw the spec as YAML and as a curl command, without fields that have their default."""
    as_yaml, as_curl = st.tabs(["YAML", "curl"])
    as_yaml.code(yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True), language=None, wrap_lines=True)
    as_yaml.caption("Save it to a file, then `calibrl submit FILE`. Defaults are omitted.")
    body = shlex.quote(json.dumps(spec))
    as_curl.code(
        'curl "$CALIBRL_API_URL/v1/jobs" \\\n'
        '  -H "Authorization: Bearer $CALIBRL_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {body}",
        language=None,  # syntax colours have too little contrast in the light theme
        wrap_lines=True,
    )


def _live_plan(spec: Mapping[str, Any], plan: JobPlan) -> None:
    """Draw the current plan: machines and other jobs change while the form is filled in."""
    with states.explained("trouble-plan"):
        with states.tolerated():
            try:
                plan = catalogue.plan(spec)
            except CalibrlError as error:
                if error.status == 422:  # a referenced job or dataset is gone: the page shows the field
                    st.rerun()
                raise
        plan_summary.draw(plan)


def _plan(form: SpecForm, spec: Mapping[str, Any]) -> bool:
    """Draw the plan of the spec, or its errors. Return true if it can be submitted."""
    errors: list[Mapping[str, str]] = [*form.errors]
    if not errors:
        try:
            with st.spinner("Validating…"):
                plan = catalogue.plan(spec)
        except CalibrlError as error:
            if error.status != 422:
                states.trouble(error)
                return False
            errors = [*error.errors] or [{"field": "spec", "message": str(error)}]
        else:
            st.fragment(_live_plan, run_every=service.IDLE_TICK)(spec, plan)
            return True
    form.blame(errors)
    plan_summary.draw_errors(errors)
    return False


def _submit(spec: Mapping[str, Any], *, possible: bool) -> None:
    if not st.button("Submit job", type="primary", icon=":material/play_arrow:", disabled=not possible):
        return
    try:
        job = service.client().submit(spec)
    except CalibrlError as error:
        states.trouble(error)
        return
    service.clear_job_caches()
    st.switch_page("app_pages/job.py", query_params={"id": str(job.id)})


def _pipeline(specs: list[dict[str, Any]]) -> None:
    """Draw the plan of the first job of a pipeline, the button that submits all, and the YAML."""
    st.subheader(as_markdown(f"Plan of {specs[0]['name']}"), anchor=False)
    try:
        with st.spinner("Validating…"):
            plan_summary.draw(catalogue.plan(specs[0]))
        possible = True
    except CalibrlError as error:
        possible = False
        plan_summary.draw_errors(chain_form.faults(error))
    if st.button("Submit pipeline", type="primary", icon=":material/play_arrow:", disabled=not possible):
        try:
            job = chain_form.submit(specs)
        except CalibrlError as error:
            plan_summary.draw_errors(chain_form.faults(error))
        else:
            st.switch_page("app_pages/job.py", query_params={"id": str(job.id)})
    chain_form.code(specs)


def page() -> None:
    """Draw the page."""
    st.title("New job", anchor=False)
    projects = catalogue.own_projects()
    if not projects:
        states.empty(
            "Read-only",
            "You need the member role in a project and a key with write scope. An admin can grant both.",
        )
        return
    form_start.fill_from_url()
    left, right = st.columns([3, 2], gap="large")
    with left:
        kind, key, first = _start()
        if not kind:
            specs = chain_form.fill_in(projects)
    if not kind:
        with right, st.container(key="plan"):
            st.html(STICKY)
            _pipeline(specs)
        return
    with left:
        _import()
        form = SpecForm(
            SCHEMAS[kind],
            form_start.start_of(kind, key, first, SCHEMAS[kind]),
            key=f"{FORM}{key}",
            offered={"project": {slug: slug for slug in projects}},
            named=NAMED,
            common=COMMON,
        )
        _fill_in(form, kind)
        form_start.remember(kind, key, form.value)
    with right, st.container(key="plan"):
        st.html(STICKY)
        st.subheader("Plan", anchor=False)
        spec = SCHEMAS[kind].trimmed(SCHEMAS[kind].root, form.value)
        _submit(spec, possible=_plan(form, spec))
        _code(spec)


with states.explained():
    page()
