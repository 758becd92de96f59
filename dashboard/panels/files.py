"""Files of a job: checkpoints, evaluations of them, results, and exports of its metrics."""

import streamlit as st

from calibrl.schemas import Checkpoint, Job, JobStatus
from calibrl.schemas.byte_counts import file_size
from dashboard import states
from dashboard.markup import chip, escape, file_link, heading, job_link, moment, status_chip, table
from dashboard.palette import CORRECT
from dashboard.panels.common import draw_live
from dashboard.panels.panel import Panel
from dashboard.reads import service
from dashboard.reads.downloads import address

ACCURACIES = {"accuracy": "accuracy", "strict_accuracy": "strict", "pass_at_k": "pass@k"}
EXPORTS = (  # file, title, purpose
    ("metrics.csv", "CSV", "every step and metric, for spreadsheets"),
    ("metrics.parquet", "Parquet", "the same, for pandas or Polars"),
    ("tensorboard", "TensorBoard", "an event file: tensorboard --logdir FOLDER"),
    ("log.txt", "Log", "output of the trainer"),
)


RESULTS = {"evaluate": "Every completion with its verifier scores", "audit": "Every row with its verdict"}  # files


def draw(job: Job) -> None:
    """Draw the panel."""
    draw_live(job, _train if job.kind == "train" else _other)


def _train(job: Job) -> None:
    _checkpoints(job)
    _evaluations(job)
    _exports(job)


def _other(job: Job) -> None:
    if job.status is JobStatus.SUCCEEDED and job.kind in RESULTS:
        _results(job)
    _exports(job)


def _accuracies(checkpoint: Checkpoint) -> str:
    """The validation metrics by which to choose a checkpoint."""
    values = {name: checkpoint.metrics.get(f"validation/{name}") for name in ACCURACIES}
    return (
        ", ".join(f"{text} {float(value):.1%}" for name, text in ACCURACIES.items() if (value := values[name])) or "–"
    )


def _row(job: Job, checkpoint: Checkpoint) -> str:
    total = service.checkpoint_bytes(job.id, checkpoint.step)
    best = f" {chip('best', CORRECT)}" if checkpoint.best else ""
    link = "Files not readable by the API server"
    if total is not None:
        link = file_link(address(job.id, f"checkpoint-{checkpoint.step}.tar"), f"Download, {file_size(total)}")
    return (
        f'<tr><td style="white-space:nowrap">Step {checkpoint.step}{best}</td>'
        f'<td style="white-space:nowrap">{link}<div style="font-size:.85rem">{_next_step(job, checkpoint)}</div></td>'
        f"<td>{escape(_accuracies(checkpoint))}"
        f'<div style="overflow-wrap:anywhere;font-size:.78rem;opacity:.8">{escape(checkpoint.path)}</div></td>'
        f'<td data-label="Saved">{escape(moment(checkpoint.created_at))}</td></tr>'
    )


def _next_step(job: Job, checkpoint: Checkpoint) -> str:
    """A link to the form of an evaluation of the checkpoint, for those who can submit jobs."""
    if not service.me().may_change(job.project):
        return ""
    return f'<a href="new?evaluate={job.id}&amp;checkpoint={checkpoint.step}" target="_self">Evaluate</a>'


def _checkpoints(job: Job) -> None:
    checkpoints: list[Checkpoint] = []
    with states.tolerated():
        checkpoints = service.checkpoints(job.id)
    with st.container(border=True, key="card-checkpoints"):
        hint = "Model folders, to load yourself or to start another job from. Each download is one tar file."
        if not checkpoints:
            st.html(heading("Checkpoints", hint))
            st.caption("No checkpoint yet")
            return
        latest_first = sorted(checkpoints, key=lambda checkpoint: -checkpoint.step)
        titles = ("Checkpoint", "File", "Validation, path on the worker", "Saved")
        st.html(heading("Checkpoints", hint) + table(titles, (_row(job, checkpoint) for checkpoint in latest_first)))
        st.caption("Path on the worker, and resumable download (CLI):")
        st.code(latest_first[0].path, language=None, wrap_lines=True)
        st.code(f"calibrl download {job.id} --step {latest_first[0].step} ./model", language=None)


def _evaluations(job: Job) -> None:
    evaluations = []
    with states.tolerated():
        evaluations = [other for other in service.derived(job.id) if other.kind == "evaluate"]
    with st.container(border=True, key="card-evaluations"):
        st.html(heading("Evaluations", "Evaluations of these checkpoints"))
        if not evaluations:
            st.caption("No evaluation yet")
            return
        rows = (
            f"<tr><td>{job_link(evaluation.id, evaluation.name)}</td><td>{status_chip(evaluation.status)}</td>"
            f'<td data-label="Submitted">{escape(moment(evaluation.created_at))}</td></tr>'
            for evaluation in evaluations
        )
        st.html(table(("Evaluation", "Status", "Submitted"), rows))


def _results(job: Job) -> None:
    files = []
    with states.tolerated():
        files = service.result_files(job.id, job.attempt)
    with st.container(border=True, key="card-results"):
        st.html(heading("Results", RESULTS[job.kind]))
        for file in files:
            link = file_link(address(job.id, f"result/{file.name}"), f"{file.name}, {file_size(file.bytes)}")
            st.html(f"<div>{link}</div>")


def _exports(job: Job) -> None:
    rows = (
        f'<div style="margin:.35rem 0">{file_link(address(job.id, file), name)} '
        f'<span style="opacity:.8">{escape(purpose)}</span></div>'
        for file, name, purpose in EXPORTS
    )
    with st.container(border=True, key="card-exports"):
        st.html(heading("Exports", "Up to the current step") + "".join(rows))


PANELS = (Panel("Files", draw, 110, kinds=()),)
