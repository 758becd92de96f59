"""Conditions that must hold for a job, and for the stack, after a fault."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import JobFilter, JobStatus
from jobs import models
from jobs.lifecycle import machines
from jobs.repository import checkpoints, histograms, jobs, metrics, samples
from jobs.settings import get_settings
from tests.chaos import orders, pids
from tests.chaos.reference_runs import ReferenceRuns, Reports, comparable

ALL = 1_000_000


@dataclass
class Found:
    """Findings: lost jobs, steps that are repeated or differ from a run without faults, leftover processes, and broken
    promises (late claim, unneeded restart, lost pause), each also in words.
    """

    lost: int = 0
    doubled: int = 0
    left: int = 0
    broken: int = 0
    words: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Add other findings."""
        self.lost += other.lost
        self.doubled += other.doubled
        self.left += other.left
        self.broken += other.broken
        self.words += other.words


def reported(session: Session, job_id: UUID, names: set[str]) -> Reports:
    """Return the reports of a run that are in the database."""
    found = Reports()
    for step, _, values in metrics.page(session, job_id, names=None, after_step=-1, limit=ALL):
        found.metrics[step] = comparable(values)
    for name in names:
        for row in histograms.page(session, job_id, name=name, after_step=-1, limit=ALL):
            found.histograms[row.step, row.name] = (row.edges, row.counts)
    found.samples = Counter(row.step for row in samples.page(session, job_id, step=None, after=0, limit=ALL))
    return found


def check_job(job_id: UUID, wanted: JobStatus, references: ReferenceRuns) -> Found:
    """Check the final status, and that the reports equal those of a run without faults: all of them, or, if the job was
    cancelled or failed, the first ones.
    """
    job = orders.job(job_id)
    found = Found()
    if job.status is not wanted:
        found.lost = 1
        found.words.append(f"{job.status} ({job.reason}: {job.message}), not {wanted}; step {job.step}")
        return found
    if job.attempt:
        _compare(job, references, found)
        _check_checkpoints(job, found)
    return found


def _compare(job: models.Job, references: ReferenceRuns, found: Found) -> None:
    config = newest_attempt(job.id) / "config.json"
    reference = references.of(config)
    names = {name for _, name in reference.histograms}
    has = orders.asked(lambda session: reported(session, job.id, names))
    whole = job.status is JobStatus.SUCCEEDED
    last = max(reference.metrics) if whole else max(has.metrics, default=0)
    missing = sorted(set(range(1, last + 1)) - has.metrics.keys())
    if missing:
        found.lost += 1
        found.words.append(f"steps {missing} are missing")
    differing = sorted(step for step, values in has.metrics.items() if values != reference.metrics.get(step))
    if differing:
        names_ = sorted(
            n for n, v in has.metrics[differing[0]].items() if v != reference.metrics.get(differing[0], {}).get(n)
        )
        found.doubled += len(differing)
        found.words.append(f"steps {differing} differ from a run without faults ({', '.join(names_[:5])})")
    kinds: list[tuple[str, Mapping[Any, Any], Mapping[Any, Any]]] = [
        ("histograms", has.histograms, {k: v for k, v in reference.histograms.items() if k[0] <= last}),
        ("samples", has.samples, Counter({k: v for k, v in reference.samples.items() if k <= last})),
    ]
    for what, mine, other in kinds:
        if mine != other:
            wrong = sorted(key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key))
            more = [key for key in wrong if what == "samples" and mine.get(key, 0) > other.get(key, 0)]
            found.doubled += len(more) or len(wrong)
            found.words.append(f"{what} differ from a run without faults: {wrong[:10]}")


def _check_checkpoints(job: models.Job, found: Found) -> None:
    kept = orders.asked(lambda session: checkpoints.of_job(session, job.id))
    gone = [row.path for row in kept if not Path(row.path).is_dir()]
    if gone:
        found.words.append(f"checkpoints in the database are not on disk: {gone}")
        found.lost += 1


def newest_attempt(job_id: UUID) -> Path:
    """Return the folder of the job's newest attempt."""
    folders = get_settings().job_dir(job_id).glob("attempt-*")
    return max(folders, key=lambda path: int(path.name.removeprefix("attempt-")))


def check_stack(data_dir: Path) -> Found:
    """Check that no trainer runs, no lease is held, and no GPU belongs to a job."""
    found = Found()
    left = pids.trainers_of_any(data_dir)
    if left:
        found.left = len(left)
        found.words += [f"process {pid} is left: {pids.command(pid)}" for pid in left]
    held = orders.asked(_held)
    if held:
        found.words += held
        found.lost += len(held)
    return found


def _held(session: Session) -> list[str]:
    leased = [
        f"job {job.id} ({job.status}) still has a lease"
        for job in jobs.page(session, JobFilter.model_construct(limit=ALL))
        if job.lease_token is not None
    ]
    gpus = [
        f"GPU {gpu.index} of {worker.name} is still held by {gpu.job_id}"
        for worker in machines.page(session, after="", limit=100)
        for gpu in worker.gpus
        if gpu.job_id is not None
    ]
    return leased + gpus
