"""The queue: time to start on an idle queue, time saved by quick starts, and a soak test with many short jobs.

    python -m bench.queue --jobs 2000 --projects 20 --slots 8

Runs the whole service like `calibrl up`, with one worker machine. The soak test uses the tests' trainer without torch,
so that it measures the queue. All its jobs are submitted before the first starts. All projects have the same number of
jobs and the same weight.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import report
from bench.stack import stack
from calibrl.client import Client

START_GOAL = 0.3  # seconds from a job's submission to its trainer's start, on an idle queue
STEPS = 3
WAIT_SECONDS = 120.0
PACKAGES = ("celery", "sqlalchemy", "psycopg", "torch")
FAKE = {"CALIBRL_TRAINER": "tests.support.fake_trainer"}
SPEC = {
    "kind": "train",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 40},
    "algorithm": {"type": "grpo", "mini_batches": 1},
    "rollout": {"group_size": 2, "max_completion_tokens": 8},
    "prompts_per_step": 2,
    "steps": STEPS,
}


@dataclass(frozen=True)
class Span:
    """A job's time in a slot, in seconds since 1970."""

    project: str
    claimed: float
    ended: float
    once: bool  # the job succeeded in one attempt and has all its steps


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2000, help="number of jobs of the soak test")
    parser.add_argument("--projects", type=int, default=20, help="number of their projects")
    parser.add_argument("--slots", type=int, default=8, help="number of CPU slots")
    parser.add_argument("--starts", type=int, default=30, help="number of jobs on an idle queue")
    parser.add_argument(
        "--first-steps", type=int, default=5, help="number of real trainings, with and without quick starts each"
    )
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    console = Console()
    console.print(report.circumstances(PACKAGES), soft_wrap=True)
    if warning := report.load_warning():
        console.print(warning, style="yellow")
    rows = [starts(options.starts, console), first_steps(options.first_steps, console)]
    rows += soak(options.jobs, options.projects, options.slots, console)
    path = report.write("queue", rows, options.results)
    console.print(f"\n{report.table(rows)}\n\n{path}", markup=False, highlight=False, soft_wrap=True)


def starts(count: int, console: Console) -> report.ReportRow:
    """Measure from submission to the trainer's start, on an idle queue."""
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder), FAKE) as client:
        seconds = [_start(client) for _ in range(count + 1)][1:]  # the first job also opens connections
    console.print(f"starts: {_spread(seconds)}")
    return report.within("idle queue: submission to trainer started, p50", median(seconds), "s", START_GOAL)


def _start(client: Client) -> float:
    begin = time.time()
    job = client.submit({**SPEC, "name": "start"})
    _ended(client, job.id)
    time.sleep(1.0)  # the slot's next trainer starts and imports
    return _event(client, job.id, "started") - begin


def first_steps(count: int, console: Console) -> report.ReportRow:
    """Measure from submission to the first optimiser step of a real tiny training, with and without quick starts."""
    seconds: dict[str, list[float]] = {}
    for quick in ("true", "false"):
        settings = {"CALIBRL_QUICK_STARTS": quick}
        with tempfile.TemporaryDirectory() as folder, stack(Path(folder), settings) as client:
            seconds[quick] = [_first_step(client) for _ in range(count + 1)][1:]
        console.print(f"first step, quick starts {quick}: {_spread(seconds[quick])}")
    measure = "idle queue: submission to first optimiser step, p50, with quick starts and without"
    return report.no_goal(measure, median(seconds["true"]), median(seconds["false"]), "s")


def _first_step(client: Client) -> float:
    time.sleep(15.0)  # until the slot's next trainer has imported everything
    begin = time.time()
    job = client.submit({**SPEC, "name": "first step"})
    _ended(client, job.id)
    return client.metrics(job.id, limit=1).data[0].ts.timestamp() - begin


def soak(jobs: int, projects: int, slots: int, console: Console) -> list[report.ReportRow]:
    """Run many short jobs of many projects: each exactly once; measure idle slots and fairness."""
    settings = FAKE | {"CALIBRL_WORKER_CPU_SLOTS": str(slots)}
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder), settings) as client:
        names = [f"project-{index:02d}" for index in range(projects)]
        for name in names:
            client.put_project(name, {})
        worker = client.workers()[0].name
        client.drain(worker)
        ids = [client.submit({**SPEC, "name": f"soak {n}", "project": names[n % projects]}).id for n in range(jobs)]
        client.undrain(worker)
        _watch(client, jobs, console)
        spans = [_span(client, id) for id in ids]
    return soak_rows(spans, slots)


def soak_rows(spans: list[Span], slots: int) -> list[report.ReportRow]:
    """Return the report's rows of the soak."""
    jobs, once = len(spans), sum(span.once for span in spans)
    idle, unfair = idle_seconds(spans, slots), unfairness(spans)
    length = mean(span.ended - span.claimed for span in spans)
    rate = jobs / (max(span.ended for span in spans) - min(span.claimed for span in spans))
    return [
        report.ReportRow(
            "soak: jobs that ran exactly once", once, jobs, once / jobs, "jobs", f"= {jobs}", once == jobs
        ),
        report.no_goal(
            "soak: idle slot time between two jobs, mean; peer: a job's time in its slot", idle, length, "s"
        ),
        report.no_goal("soak: largest deviation of a project from its fair share; peer: one job", unfair, 1.0, "jobs"),
        report.no_goal("soak: jobs per second; peer: one", rate, 1.0, "jobs/s"),
    ]


def idle_seconds(spans: list[Span], slots: int) -> float:
    """Return the mean time between two jobs of a slot while jobs were waiting, in seconds."""
    until = max(span.claimed for span in spans)  # from then on no job waits
    begin = min(span.claimed for span in spans)
    busy = sum(min(span.ended, until) - span.claimed for span in spans)
    return (slots * (until - begin) - busy) / max(1, len(spans) - slots)


def unfairness(spans: list[Span]) -> float:
    """Return the largest deviation of a project from an equal share of the used slot time, in jobs of average length.

    Only times at which every project had waiting jobs count.
    """
    until = min(max(s.claimed for s in spans if s.project == name) for name in {s.project for s in spans})
    length = mean(span.ended - span.claimed for span in spans)
    used = {span.project: 0.0 for span in spans}
    worst = 0.0
    for span in sorted(spans, key=lambda one: one.ended):
        if span.ended > until:
            break
        used[span.project] += span.ended - span.claimed
        fair = sum(used.values()) / len(used)
        worst = max(worst, max(abs(seconds - fair) for seconds in used.values()))
    return worst / length


def _span(client: Client, job_id: object) -> Span:
    job = client.job(str(job_id))
    steps = [row.step for row in client.metrics(job.id).data]
    once = job.status == "succeeded" and job.attempt == 1 and steps == list(range(1, STEPS + 1))
    assert job.started_at is not None and job.finished_at is not None
    return Span(job.project, job.started_at.timestamp(), job.finished_at.timestamp(), once)


def _watch(client: Client, jobs: int, console: Console) -> None:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("soak", total=jobs)
        done, changed = 0, time.monotonic()
        while done < jobs:
            if time.monotonic() > changed + WAIT_SECONDS:
                raise RuntimeError(f"no job has ended for {WAIT_SECONDS:.0f} s; {done} of {jobs} have")
            open_ = sum(_count(client, status) for status in ("queued", "running"))
            if jobs - open_ > done:
                done, changed = jobs - open_, time.monotonic()
            progress.update(bar, completed=done)
            time.sleep(2.0)


def _count(client: Client, status: str) -> int:
    """Return the number of jobs with this status."""
    found, after = 0, None
    while True:
        page = client.jobs(status=status, after=after, limit=1000)
        found += len(page.data)
        if not page.has_more:
            return found
        after = page.data[-1].id


def _ended(client: Client, job_id: object) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (job := client.job(str(job_id))).status.final:
        if time.monotonic() > deadline:
            raise RuntimeError(f"job {job_id} has not ended after {WAIT_SECONDS:.0f} s")
        time.sleep(0.05)
    if job.status != "succeeded":
        raise RuntimeError(f"job {job_id} is {job.status}: {job.message}")


def _event(client: Client, job_id: object, type: str) -> float:
    return next(event.ts.timestamp() for event in client.events(str(job_id)).data if event.type == type)


def _spread(seconds: list[float]) -> str:
    return f"p50 {median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f}, {len(seconds)} times"


if __name__ == "__main__":
    main()
