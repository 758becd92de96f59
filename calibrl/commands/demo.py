"""The demo: a warm-up, a CalibRL run from it and an evaluation of both, submitted like the jobs of any user.

Settings were chosen on the validation split only. Only the evaluation job reads the test splits.
"""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from calibrl.client import CalibrlError, Client
from calibrl.schemas import Job, JobStatus
from calibrl.stack.local import LocalStack, StackError
from calibrl.views.terminal import headline, plain
from calibrl_core.metrics import describe

POLL_SECONDS = 0.5
LONGEST_SECONDS = 3600.0  # for all jobs together; they take minutes on two cores
CONFLICT = 409  # HTTP
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
SAMPLES = 8
STACK = "stack"  # label: stack of the demo; several can share a database
MAX_TOKENS = 32
SHOWN = ("validation/accuracy", "reward/answer_accuracy", "exploration/entropy")

STAGES = {
    "before": "warmup",
    "after": "calibrl",
    "grpo": "grpo",
}  # names in the results: job of the checkpoint

Spec = dict[str, Any]


def warmup_spec(seed: int, stack: str) -> Spec:
    """Return the spec of fine-tuning on terse traces, which ends at a validation accuracy."""
    return {
        "kind": "train",
        "name": "digits-warmup",
        "labels": {"demo": "warm-up", STACK: stack},
        "model": {"builtin": "tiny-vlm", "seed": seed},
        "data": {"builtin": "digits", "split": "train", "experts": "terse", "rows": 1024},
        "validation": {
            "data": {"builtin": "digits", "split": "validation", "rows": 64},
            "every_steps": 10,
            "samples": 4,
            "stop_at_accuracy": 0.4,
        },
        "algorithm": {"type": "sft"},
        "rollout": {"max_completion_tokens": MAX_TOKENS},
        "optimizer": {"lr": 1e-3},
        "prompts_per_step": 32,
        "steps": 800,
        "checkpoints": {"every_steps": 100},
        "seed": seed,
    }


def reinforcement_spec(warmup: Job, algorithm: str) -> Spec:
    """Return the spec of reinforcement learning from the warm-up. Only the algorithm differs between runs."""
    return {
        "kind": "train",
        "name": f"digits-{algorithm}",
        "labels": {"demo": algorithm, STACK: warmup.labels[STACK]},
        "model": {"from_job": str(warmup.id), "checkpoint": "best"},
        "data": {"builtin": "digits", "split": "train"},
        "validation": {
            "data": {"builtin": "digits", "split": "validation"},
            "every_steps": 40,
            "samples": SAMPLES,
        },
        "algorithm": {"type": algorithm, "mini_batches": 1},
        "rewards": [{"type": "math", "weight": 1.0}, {"type": "format", "weight": 0.1}],
        "rollout": {"group_size": 8, "temperature": 1.0, "max_completion_tokens": MAX_TOKENS},
        "optimizer": {"lr": 1e-4},
        "prompts_per_step": 8,
        "steps": 280,
        "checkpoints": {"every_steps": 70},
        "seed": warmup.spec["seed"],
    }


def evaluation_spec(trained: list[Job]) -> Spec:
    """Return the spec of an evaluation of each run on images that no training or validation job read."""
    return {
        "kind": "evaluate",
        "name": "digits-before-after",
        "labels": {"demo": "evaluation", STACK: trained[0].labels[STACK]},
        "models": [{"from_job": str(job.id), "checkpoint": "best"} for job in trained],
        "data": [{"builtin": "digits", "split": "test"}, {"builtin": "digits", "split": "test-noise"}],
        "rollout": {"samples": SAMPLES, "greedy": True, "temperature": 1.0, "max_completion_tokens": MAX_TOKENS},
    }


class DemoError(Exception):
    """A job did not succeed. The message is its headline."""


def run(
    data_dir: Path,
    *,
    exit_when_done: bool,
    as_json: bool,
    compare: bool,
    seed: int,
    api_port: int | None,
    dashboard_port: int | None,
) -> int:
    """Run the demo and return the exit code. Progress goes to stderr, results to stdout."""
    began = time.monotonic()
    console = Console(stderr=True, highlight=False)
    console.print("Starting the database, the queue, the API, a worker and the dashboard ...")
    try:
        with LocalStack(data_dir, api_port=api_port, dashboard_port=dashboard_port) as stack:
            console.print(f"Dashboard: [bold]{stack.dashboard_url}[/]", soft_wrap=True)
            with Client(stack.api_url, stack.api_key) as client:
                jobs = _run_jobs(client, stack, console, seed=seed, compare=compare)
                if jobs is None:
                    return INTERRUPTED
                summary = _summary(jobs, client.job(jobs["evaluation"].id).result or {})
            summary |= {"seconds": round(time.monotonic() - began, 1), "dashboard_url": stack.dashboard_url}
            _print_summary(summary, as_json)
            if not exit_when_done:
                _wait_for_ctrl_c(stack, console)
    except (StackError, DemoError) as error:
        console.print(Text(f"calibrl: {plain(str(error))}"), soft_wrap=True)
        return 1
    return 0


def _run_jobs(
    client: Client, stack: LocalStack, console: Console, *, seed: int, compare: bool
) -> dict[str, Job] | None:
    """Submit and follow the jobs; return None if Ctrl-C came first.

    Unfinished jobs of this demo and of earlier ones are cancelled.
    """
    owner = _name_of(stack)
    _cancel_unfinished(client, owner)
    try:
        jobs = _submit(client, seed, owner, compare)
        _follow(client, stack, list(jobs.values()), console)
    except KeyboardInterrupt:
        console.print("Stopping ...")
        _cancel_unfinished(client, owner)
        return None
    return jobs


def _name_of(stack: LocalStack) -> str:
    """Return the owner name of the demo: it depends on the data folder and the machine."""
    return hashlib.sha256(f"{platform.node()}:{stack.data_dir}".encode()).hexdigest()[:8]


def _cancel_unfinished(client: Client, owner: str) -> None:
    """Cancel the newest jobs first, so that a dependent job is cancelled before its dependency."""
    for job in client.jobs().data:
        if "demo" in job.labels and job.labels.get(STACK) == owner and not job.status.final:
            try:
                client.cancel(job.id)
            except CalibrlError as error:
                if error.status != CONFLICT:  # it ended a moment ago: just as well
                    raise


def _wait_for_ctrl_c(stack: LocalStack, console: Console) -> None:
    console.print(f"\nLook around at {stack.dashboard_url}; Ctrl-C stops everything.", soft_wrap=True)
    try:
        while True:
            for said in stack.restart_ended():
                console.print(Text(said), soft_wrap=True)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        console.print("Stopping ...")


def _submit(client: Client, seed: int, owner: str, compare: bool) -> dict[str, Job]:
    """Submit all jobs at once; each waits for its dependencies."""
    warmup = client.submit(warmup_spec(seed, owner))
    jobs: dict[str, Job] = {"warmup": warmup}
    for algorithm in ("calibrl", "grpo") if compare else ("calibrl",):
        jobs[algorithm] = client.submit(reinforcement_spec(warmup, algorithm))
    jobs["evaluation"] = client.submit(evaluation_spec(list(jobs.values())))
    return jobs


def _follow(client: Client, stack: LocalStack, jobs: list[Job], console: Console) -> None:
    """Draw every job's progress until the last has ended.

    Raises:
        DemoError: a job failed, or the time limit has passed.
        StackError: a process of the stack has died.
    """
    deadline = time.monotonic() + LONGEST_SECONDS
    with _bars(console, jobs) as show:
        running = list(jobs)
        while running:
            stack.check()
            for job in [client.job(job.id) for job in running]:
                show(job, _latest(client, job))
                if job.status.final and job.status is not JobStatus.SUCCEEDED:
                    raise DemoError(headline(job))
                if job.status.final:
                    running = [other for other in running if other.id != job.id]
            if time.monotonic() > deadline:
                raise DemoError(f"the jobs did not end within {LONGEST_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)


def _latest(client: Client, job: Job) -> str:
    """The job's newest metrics in a few words; nothing for one that has none."""
    if job.kind != "train" or job.step == 0:
        return ""
    rows = client.metrics(job.id, names=list(SHOWN), after_step=max(0, job.step - 50)).data
    newest: dict[str, float | str] = {name: value for row in rows for name, value in row.values.items()}
    return "  ".join(f"{describe(name).label} {float(newest[name]):.2f}" for name in SHOWN if name in newest)


@contextmanager
def _bars(console: Console, jobs: list[Job]) -> Iterator[Any]:
    """Show one progress bar per job; if the output is not a terminal, one line per change of a status and per tenth of
    the steps.
    """
    columns = (
        TextColumn("{task.fields[job]:<20}"),
        TextColumn("{task.fields[status]:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    tasks: dict[Any, TaskID] = {
        job.id: progress.add_task("", total=None, start=False, job=job.name, status=job.status.value) for job in jobs
    }
    shown: dict[Any, tuple[JobStatus, int]] = {}

    def show(job: Job, latest: str) -> None:
        state = job.status, 10 * job.step // (job.steps_total or 1)
        if shown.get(job.id) != state and not console.is_terminal:
            console.print(Text(headline(job)), soft_wrap=True)
        shown[job.id] = state
        if job.started_at is not None and progress.tasks[tasks[job.id]].start_time is None:
            progress.start_task(tasks[job.id])
        progress.update(
            tasks[job.id],
            completed=job.step,
            total=job.steps_total,
            description=latest,
            status=job.status.value,
        )
        if job.status.final:
            progress.stop_task(tasks[job.id])

    with progress:
        yield show


def _summary(jobs: Mapping[str, Job], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the `test` split by the names that the README explains."""
    models = [name for name in jobs if name != "evaluation"]
    on_test = [row for row in result["results"] if row["split"] == "test"]
    metrics = {models[row["model_index"]]: row["metrics"] for row in on_test}
    names = {"accuracy": "accuracy", "greedy": "greedy_accuracy", f"pass_at_{SAMPLES}": "pass_at_k"}
    summary: dict[str, Any] = {}
    for short, name in names.items():
        summary |= {f"{short}_{stage}": metrics[job][name] for stage, job in STAGES.items() if job in metrics}
    for stage, name in STAGES.items():
        if name in metrics:
            summary[f"interval_{stage}"] = [metrics[name]["accuracy_low"], metrics[name]["accuracy_high"]]
    if "grpo" in metrics:
        summary["calibrl_against_grpo"] = _comparison(result, models.index("calibrl"), models.index("grpo"))
    summary["jobs"] = {name: str(job.id) for name, job in jobs.items()}
    return summary


def _comparison(result: Mapping[str, Any], calibrl: int, grpo: int) -> dict[str, Any]:
    """Return CalibRL minus GRPO on the same prompts, with the conclusion that the interval supports."""
    (row,) = (
        row
        for row in result["comparisons"]
        if row["split"] == "test" and (row["first"], row["second"]) == (calibrl, grpo)
    )
    difference, low, high = -row["difference"], -row["high"], -row["low"]
    if not row["distinguishable"]:
        verdict = "not distinguishable: the interval covers 0"
    else:
        verdict = (
            f"{'CalibRL' if difference > 0 else 'GRPO'} answers more of these prompts right, in this one run of each"
        )
    return {"difference": difference, "low": low, "high": high, "verdict": verdict}


def _print_summary(summary: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
        sys.stdout.flush()
        return
    compared = "accuracy_grpo" in summary
    table = Table(title="On 256 images that no training job saw", title_justify="left", box=None, pad_edge=False)
    for column in ("", "warm-up", "CalibRL", *(["GRPO"] if compared else [])):
        table.add_column(column, justify="right" if column else "left")
    labels = {
        "accuracy": f"accuracy, mean of {SAMPLES} samples",
        "greedy": "accuracy, greedy",
        f"pass_at_{SAMPLES}": f"solved in {SAMPLES} samples",
    }
    stages = [stage for stage in STAGES if f"accuracy_{stage}" in summary]
    intervals = (summary[f"interval_{stage}"] for stage in stages)
    for short, label in labels.items():
        table.add_row(label, *(f"{summary[f'{short}_{stage}']:.3f}" for stage in stages))
        if short == "accuracy":
            table.add_row("  its 95 % interval", *(f"{low:.3f} to {high:.3f}" for low, high in intervals))
    console = Console(highlight=False)
    console.print(table)
    if compared:
        comparison = summary["calibrl_against_grpo"]
        interval = (
            f"{comparison['difference']:+.3f} (95 % interval {comparison['low']:+.3f} to {comparison['high']:+.3f})"
        )
        console.print(f"CalibRL - GRPO: {interval}; {comparison['verdict']}.", soft_wrap=True)
    console.print(f"Total time: {summary['seconds']:.0f} s.")
