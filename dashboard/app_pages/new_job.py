"""A job put together: a form made of the spec's own schema, beside what would become of it."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import streamlit as st
import yaml

from calibrl import presets
from calibrl.client import CalibrlError
from calibrl.schemas import EvaluateSpec, JobPlan, JobSummary, TrainSpec
from dashboard import states
from dashboard.forms.schema import Schema, label
from dashboard.forms.schema_form import FORM, MARKDOWN, Form
from dashboard.markup import heading
from dashboard.reads import catalogue, data
from dashboard.views import plan_summary

TRAINING, EVALUATION = "Training", "Evaluation"
SCHEMAS = {
    "train": Schema(TrainSpec.model_json_schema()),
    "evaluate": Schema(EvaluateSpec.model_json_schema()),
}
NAMED = {
    "builtin": "Built in",
    "path": "A file or folder on the server",
    "hub": "From the Hugging Face hub",
    "dataset": "An uploaded data set",
    "from_job": "Another job's checkpoint",
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
FIRST_EVALUATION: dict[str, Any] = {
    "name": "my-evaluation",
    "models": [{"from_job": None}],  # the newest one, where there is any
    "data": [{"builtin": "digits", "split": "test"}],
}
MAIN = ("steps", "prompts_per_step", "rollout.group_size", "rollout.max_completion_tokens", "optimizer.lr")
# The plan stays in sight beside the long form, where there is room for both.
STICKY = (
    "<style>@media (min-width:641px){.stColumn:has(> div .st-key-plan),.stColumn:has(.st-key-plan)"
    "{position:sticky;top:4rem;align-self:flex-start;max-height:calc(100vh - 5rem);overflow-y:auto}}</style>"
)
FOLDED = {  # sections that are closed at first
    "train": {
        "Rollouts and prompts": ("rollout", "prompts"),
        "Optimizer and batches": (
            "optimizer",
            "micro_batch_tokens",
            "micro_batch_rows",
            "precision",
            "parallel",
            "seed",
        ),
        "Checkpoints and samples": ("checkpoints", "samples"),
        "Health rules": ("health",),
        "Queue, labels and limits": ("priority", "labels", "depends_on", "resources", "limits"),
    },
    "evaluate": {
        "Sampling": ("rollout", "seed"),
        "Queue, labels and limits": ("priority", "labels", "depends_on", "resources", "limits"),
    },
}


def _start() -> tuple[str, str, dict[str, Any]]:
    """The kind of job, a key of the beginning that was chosen, and that beginning."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control(
            "Kind",
            [TRAINING, EVALUATION],
            default=TRAINING,
            required=True,
            key="kind",
            bind="query-params",
        )
        if kind == EVALUATION:
            return "evaluate", "evaluate", FIRST_EVALUATION
        chosen = st.selectbox(
            "Begin with the preset",
            presets.names(),
            presets.names().index("calibrl"),
            format_func=lambda name: NAMED.get(name, label(name)),
            key="preset",
            bind="query-params",
            help="A whole spec to start from, one for each algorithm. Choosing another one begins the form anew.",
        )
    st.caption(presets.summary(chosen).translate(MARKDOWN))
    return "train", chosen, yaml.safe_load(presets.text(chosen))


def _offered(project: str) -> dict[str, Mapping[str, str]]:
    """What of a project's own a job may name."""

    def named(jobs: list[JobSummary]) -> dict[str, str]:
        return {str(job.id): f"{job.name} ({str(job.id)[:8]}, {job.status.value})" for job in jobs}

    sets = catalogue.datasets(project).data
    return {
        "from_job": named(catalogue.newest(project, "train")),
        "depends_on": named(catalogue.newest(project, None)),
        "dataset": {str(each.id): f"{each.name} ({str(each.id)[:8]})" for each in sets},
    }


def _folded(form: Form, kind: str) -> None:
    for title, sections in FOLDED[kind].items():
        with st.expander(title):
            form.rest(*sections)


def _card(form: Form, title: str, hint: str, *fields: str) -> None:
    with st.container(border=True):
        st.html(heading(title, hint))
        form.fields(*fields)


def _fill_in(form: Form, kind: str) -> None:
    """All widgets of a spec, those that most people change first."""
    form.value["kind"] = kind
    with st.container(border=True):
        form.fields("name", "project")
    form.offered |= _offered(str(form.value["project"]))
    if kind == "evaluate":
        _card(form, "Models", "Each is measured on every data set.", "models")
        _card(form, "Data", "What the models have not seen: else the figures flatter them.", "data")
    else:
        _card(form, "Model", "Where learning begins.", "model")
        _card(form, "Data", "The prompts, and the experts where the algorithm wants any.", "data")
        _card(form, "Learning", "How, how long and how fast.", "algorithm", *MAIN, "resources.gpus")
        _card(form, "Held-out accuracy", "Measured on data that training never sees.", "validation")
    _card(form, "Rewards", "What a completion is worth: the verdicts, each times its weight, added up.", "rewards")
    _folded(form, kind)


def _code(spec: Mapping[str, Any]) -> None:
    """The same spec for a file and for a terminal; whoever reads it sees what differs from the defaults."""
    as_yaml, as_curl = st.tabs(["YAML", "curl"])
    as_yaml.code(yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True), language=None, wrap_lines=True)
    as_yaml.caption("In a file: `calibrl submit FILE`. Only what differs from the defaults stands here.")
    body = shlex.quote(json.dumps(spec))
    as_curl.code(
        'curl "$CALIBRL_API_URL/v1/jobs" \\\n'
        '  -H "Authorization: Bearer $CALIBRL_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {body}",
        language=None,  # the colours of code are too faint on its ground, in light
        wrap_lines=True,
    )


def _live_plan(spec: Mapping[str, Any], plan: JobPlan) -> None:
    """The plan as it now stands, as machines and other jobs come and go while the form is filled in."""
    with states.explained("trouble-plan"):
        with states.tolerated():
            try:
                plan = catalogue.plan(spec)
            except CalibrlError as error:
                if error.status == 422:  # what it names is gone: the whole page says which field that is
                    st.rerun()
                raise
        plan_summary.draw(plan)


def _plan(form: Form, spec: Mapping[str, Any]) -> bool:
    """Show what would become of the spec, or what is wrong with it; whether it can be submitted."""
    errors: list[Mapping[str, str]] = [
        {"field": path, "message": "Choose one, or fill this in"} for path in form.missing
    ]
    if not errors:
        try:
            with st.spinner("Asking what would become of it …"):
                plan = catalogue.plan(spec)
        except CalibrlError as error:
            if error.status != 422:
                states.trouble(error)
                return False
            errors = [*error.errors] or [{"field": "spec", "message": str(error)}]
        else:
            st.fragment(_live_plan, run_every=data.IDLE_TICK)(spec, plan)
            return True
    form.blame(errors)
    plan_summary.refused(errors)
    return False


def _submit(spec: Mapping[str, Any], *, possible: bool) -> None:
    if not st.button("Submit the job", type="primary", icon=":material/play_arrow:", disabled=not possible):
        return
    try:
        job = data.client().submit(spec)
    except CalibrlError as error:
        states.trouble(error)
        return
    data.changed()
    st.switch_page("app_pages/job.py", query_params={"id": str(job.id)})


def page() -> None:
    st.title("New job", anchor=False)
    projects = catalogue.own_projects()
    if not projects:
        states.empty(
            "You may only look",
            "Submitting jobs takes the role of a member in a project, and a key that may write. An admin can help.",
        )
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        kind, key, start = _start()
        form = Form(
            SCHEMAS[kind],
            start,
            key=f"{FORM}{key}",
            offered={"project": {slug: slug for slug in projects}},
            named=NAMED,
            common=COMMON,
        )
        _fill_in(form, kind)
    with right, st.container(key="plan"):
        st.html(STICKY)
        st.subheader("What would become of it", anchor=False)
        spec = SCHEMAS[kind].trimmed(SCHEMAS[kind].root, form.value)
        _submit(spec, possible=_plan(form, spec))
        _code(spec)


with states.explained():
    page()
