"""What a job leaves: checkpoints, evaluations of them, and its curves for other tools."""

import streamlit as st

from calibrl.schemas import Checkpoint, Job, JobStatus
from dashboard import states
from dashboard.markup import chip, escape, file_link, heading, job_link, moment, size, status_chip, table
from dashboard.palette import CORRECT
from dashboard.panels.common import draw_live
from dashboard.reads import data
from dashboard.reads.downloads import address

MEASURED = {"accuracy": "accuracy", "strict_accuracy": "strict", "pass_at_k": "pass@k"}
EXPORTS = (  # file, what it is called, what it is for
    ("metrics.csv", "CSV", "every step and metric, for spreadsheets"),
    ("metrics.parquet", "Parquet", "the same, for pandas and friends"),
    ("tensorboard", "TensorBoard", "an event file: tensorboard --logdir FOLDER"),
    ("log.txt", "Log", "all that the trainer printed"),
)


def draw(job: Job) -> None:
    draw_live(job, _train if job.kind == "train" else _evaluate)


def _train(job: Job) -> None:
    _checkpoints(job)
    _evaluations(job)
    _exports(job)


def _evaluate(job: Job) -> None:
    if job.status is JobStatus.SUCCEEDED:
        _results(job)
    _exports(job)


def _measured(checkpoint: Checkpoint) -> str:
    """The few of its metrics that one would choose it by."""
    values = {name: checkpoint.metrics.get(f"validation/{name}") for name in MEASURED}
    return ", ".join(f"{said} {float(value):.1%}" for name, said in MEASURED.items() if (value := values[name])) or "–"


def _row(job: Job, checkpoint: Checkpoint) -> str:
    known = data.checkpoint_bytes(job.id, checkpoint.step)
    best = f" {chip('best', CORRECT)}" if checkpoint.best else ""
    link = "not within the API's reach"
    if known is not None:
        link = file_link(address(job.id, f"checkpoint-{checkpoint.step}.tar"), f"Download, {size(known)}")
    return (
        f'<tr><td style="white-space:nowrap">Step {checkpoint.step}{best}</td>'
        f'<td style="white-space:nowrap">{link}</td><td>{escape(_measured(checkpoint))}'
        f'<div style="overflow-wrap:anywhere;font-size:.78rem;opacity:.8">{escape(checkpoint.path)}</div></td>'
        f'<td data-label="Written">{escape(moment(checkpoint.created_at))}</td></tr>'
    )


def _checkpoints(job: Job) -> None:
    kept: list[Checkpoint] = []
    with states.tolerated():
        kept = data.checkpoints(job.id)
    with st.container(border=True, key="card-checkpoints"):
        hint = "Folders that a job can start from, or that you can load yourself; each as one tar file."
        if not kept:
            st.html(heading("Checkpoints", hint))
            st.caption("No checkpoint yet.")
            return
        newest_first = sorted(kept, key=lambda checkpoint: -checkpoint.step)
        titles = ("Checkpoint", "File", "Held out, and the folder on the worker", "Written")
        st.html(heading("Checkpoints", hint) + table(titles, (_row(job, one) for one in newest_first)))
        st.caption("From a terminal, going on where it was cut off:")
        st.code(f"calibrl download {job.id} --step {newest_first[0].step} ./model", language=None)


def _evaluations(job: Job) -> None:
    found = []
    with states.tolerated():
        found = [other for other in data.derived(job.id) if other.kind == "evaluate"]
    with st.container(border=True, key="card-evaluations"):
        st.html(heading("Evaluations", "Jobs that judge this one's checkpoints."))
        if not found:
            st.caption("None yet.")
            return
        rows = (
            f"<tr><td>{job_link(one.id, one.name)}</td><td>{status_chip(one.status)}</td>"
            f'<td data-label="Submitted">{escape(moment(one.created_at))}</td></tr>'
            for one in found
        )
        st.html(table(("Evaluation", "Status", "Submitted"), rows))


def _results(job: Job) -> None:
    files = []
    with states.tolerated():
        files = data.result_files(job.id, job.attempt)
    with st.container(border=True, key="card-results"):
        st.html(heading("Results", "Every single answer, with its verdicts."))
        for file in files:
            link = file_link(address(job.id, f"result/{file.name}"), f"{file.name}, {size(file.bytes)}")
            st.html(f"<div>{link}</div>")


def _exports(job: Job) -> None:
    rows = (
        f'<div style="margin:.35rem 0">{file_link(address(job.id, file), name)} '
        f'<span style="opacity:.8">{escape(purpose)}</span></div>'
        for file, name, purpose in EXPORTS
    )
    with st.container(border=True, key="card-exports"):
        st.html(heading("Exports", "As far as the job has come.") + "".join(rows))
