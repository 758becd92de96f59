"""State of single jobs of a study: failed for good, retried, cost. Pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from calibrl.schemas.base import HOUR
from calibrl.schemas.jobs import JobSummary
from calibrl.schemas.status import JobStatus, Reason
from calibrl.schemas.studies import StudySpec
from jobs.studies.expansion import RETRIES, Expansion, Part, StudyJob

# Reasons of failures that can pass without a change of the spec.
RETRIED = frozenset({Reason.CRASHED, Reason.DISK_FULL, Reason.LOST_WORKER, Reason.NO_PROGRESS, Reason.WORKER_STOPPED})
BROKEN = JobStatus.broken_ones()
Known = Mapping[str, JobSummary]  # jobs that exist, by digest


def broken(job: StudyJob, expansion: Expansion, known: Known, retries: int) -> bool:
    """Return if a job has failed for good, or cannot start because the job that it starts from has."""
    found = known.get(job.digest)
    if found is not None and found.status is JobStatus.SUCCEEDED:
        return False
    if job.needs is not None and broken(expansion.by_digest[job.needs], expansion, known, retries):
        return True
    if found is None or found.status not in BROKEN:
        return False
    return not (can_retry(found, retries) or found.reason is Reason.DEPENDENCY_FAILED)


def can_retry(job: JobSummary, retries: int) -> bool:
    """Return if a failed job is retried once more."""
    return job.status is JobStatus.FAILED and job.reason in RETRIED and retried(job) < retries


def retried(job: JobSummary) -> int:
    """Return the number of times that the study has retried a job."""
    text = job.labels.get(RETRIES, "0")
    return int(text) if text.isdecimal() else 0


def to_retry(expansion: Expansion, known: Known, retries: int) -> Iterator[StudyJob]:
    """Yield the failed jobs that are retried now. A job that failed together with the one that it starts from follows
    when that one is no longer failed.
    """
    for job in expansion.jobs:
        found = known.get(job.digest)
        if found is None or found.status is not JobStatus.FAILED:
            continue
        before = known.get(job.needs) if job.needs else None
        if before is not None and before.status in BROKEN:
            continue
        if can_retry(found, retries) or found.reason is Reason.DEPENDENCY_FAILED:
            yield job


def slots(job: JobSummary) -> int:
    """Return the number of slots of a job: its GPUs, or one CPU slot per machine."""
    return job.machines * max(1, job.gpus)


def seconds(job: JobSummary, now: datetime) -> float:
    """Return the time since the first start of a job, or from start to end."""
    if job.started_at is None or not (job.status.held or job.status.final):
        return 0.0
    return max(0.0, ((job.finished_at or now) - job.started_at).total_seconds())


def slot_hours(jobs: Sequence[JobSummary], now: datetime) -> float:
    """Return the slot-hours of jobs so far."""
    return sum(seconds(job, now) * slots(job) for job in jobs) / HOUR


Expected = Mapping[Part, float | None]  # slot-seconds of a job; None: unknown


def expected_costs(expansion: Expansion, known: Known) -> Expected:
    """Return the expected slot-seconds of a job of each part: the mean of its succeeded jobs."""
    now = datetime.now(UTC)
    costs: dict[Part, list[float]] = {"warm-up": [], "training": [], "evaluation": []}
    for job in expansion.jobs:
        found = known.get(job.digest)
        if found is not None and found.status is JobStatus.SUCCEEDED:
            costs[job.part].append(seconds(found, now) * slots(found))
    return {part: sum(found) / len(found) if found else None for part, found in costs.items()}


def left_of(job: StudyJob, expected: Expected, known: Known, now: datetime) -> float | None:
    """Return the slot-seconds that a job still needs; None if that cannot be estimated."""
    found = known.get(job.digest)
    if found is not None and found.status.final:
        return 0.0
    if found is not None and found.status.held and found.step and found.steps_total:
        return seconds(found, now) * slots(found) * (found.steps_total - found.step) / found.step
    cost = expected[job.part]
    if cost is None:
        return None
    return max(0.0, cost - (seconds(found, now) * slots(found) if found is not None else 0.0))


def seeds_in_budget(study: StudySpec, expansion: Expansion, known: Known, active: Sequence[str]) -> int:
    """Return the number of seeds, from the first, whose runs fit into the budget. The first seed always runs: its run
    times are the estimate for the others. A seed that has begun runs for all arms, so that they keep the same seeds.
    """
    if study.budget_slot_hours is None:
        return len(study.seeds)
    now = datetime.now(UTC)
    expected = expected_costs(expansion, known)
    used = slot_hours([*known.values()], now) * HOUR
    for count, seed in enumerate(study.seeds):
        jobs = [job for job in expansion.jobs if job.seed == seed and job.part != "warm-up" and job.arm in active]
        required = count == 0 or any(job.digest in known for job in jobs)
        left = [left_of(job, expected, known, now) for job in jobs]
        used += sum(filter(None, left))
        if not required and (None in left or used > study.budget_slot_hours * HOUR):
            return count
    return len(study.seeds)
