"""Faults against real training of the tiny model: its metrics must equal those of a run without faults, bit for bit."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from calibrl.schemas import JobStatus, Reason
from jobs import lifecycle, models
from tests.chaos import orders, pids, verify
from tests.chaos.reference_runs import ReferenceRuns
from tests.chaos.stack import ChaosStack
from tests.chaos.verify import Found
from tests.support.waiting import LIMIT_SECONDS, eventually

STEPS, EVERY = 60, 10
SPEC = {
    "kind": "train",
    "name": "real training",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 40},
    "algorithm": {"type": "sft"},  # an untrained model never gives a correct answer, so rewards would teach it nothing
    "rollout": {"max_completion_tokens": 32},
    "optimizer": {"lr": 1e-3},
    "prompts_per_step": 2,
    "steps": STEPS,
    "samples": {"every_steps": 20, "groups": 1},
    "checkpoints": {"every_steps": EVERY},
}


def play(folder: Path, seed: int, *, short: bool) -> tuple[int, Found]:
    """Run a job per fault, one after the other; return the number of faults and the findings."""
    rng, found = random.Random(seed), Found()
    references = ReferenceRuns(folder / "references", "calibrl_core")
    blows = [worker_killed] if short else [worker_killed, trainer_killed, paused]
    with ChaosStack(folder / "stack", trainer="calibrl_core", slots=(1, 0), lease_seconds=6) as stack:
        for blow in blows:
            here = _one(stack, blow, rng.randint(EVERY + 1, STEPS - EVERY), references)
            here.words = [f"real training, {blow.__name__}: {words}" for words in here.words]
            found.add(here)
    return len(blows), found


def _one(
    stack: ChaosStack, blow: Callable[[ChaosStack, models.Job], None], step: int, references: ReferenceRuns
) -> Found:
    job_id = orders.submit(SPEC)
    eventually(lambda: orders.job(job_id).step >= step)
    before = orders.job(job_id)
    blow(stack, before)
    _drive(job_id)
    found = verify.check_job(job_id, JobStatus.SUCCEEDED, references)
    if orders.job(job_id).attempt == before.attempt:
        found.words.append("the run had ended before the fault")
        found.lost += 1
    found.add(verify.check_stack(stack.data_dir))
    return found


def _drive(job_id: UUID) -> None:
    """Run the job to its end: resume it if paused, retry it if crashed."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while (job := orders.job(job_id)).status is not JobStatus.SUCCEEDED and time.monotonic() < deadline:
        if job.status is JobStatus.PAUSED:
            orders.ordered(lifecycle.resume, job_id)
        elif job.status is JobStatus.FAILED and job.reason is Reason.CRASHED:
            orders.ordered(lifecycle.retry, job_id)
        time.sleep(0.2)


def worker_killed(stack: ChaosStack, job: models.Job) -> None:
    """Kill the worker's main process and start it again."""
    assert job.worker is not None
    stack.machine(job.worker).start()


def trainer_killed(stack: ChaosStack, job: models.Job) -> None:
    """Kill the trainer."""
    pids.send(pids.trainers(job.id), signal.SIGKILL)


def paused(stack: ChaosStack, job: models.Job) -> None:
    """Pause and resume the job, as a user does."""
    orders.ordered(lifecycle.pause, job.id)
