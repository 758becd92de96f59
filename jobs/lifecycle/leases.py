"""Actions of workers on a job: claim it, hold it by a lease, report its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from calibrl.schemas import HubModel, JobCheckpoint, JobKind, JobStatus, KnownData, Limits, Reason
from calibrl_core.data.schema import FileData, HubData
from jobs import models
from jobs.db import wake_after_commit
from jobs.files import artifacts, datasets, pinned_checkpoints
from jobs.files.hub_models import HubSnapshot
from jobs.lifecycle.dispatch import plan_after_commit, startable
from jobs.lifecycle.lost_steps import GOES_ON, note_lost_steps
from jobs.lifecycle.project_limits import limited
from jobs.lifecycle.status import SCHEDULER, change
from jobs.repository import attempts, checkpoints, events, job_machines, jobs, projects, queue, workers
from jobs.repository import datasets as known_datasets
from jobs.scheduling.gpus import choose_gpus
from jobs.settings import get_settings
from jobs.specs.trainer_config import SpecNoLongerValid, trainer_config

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 30.0, 1800.0
MOST_DELAYS = 20


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint of an earlier attempt in the database, and its path below the data folder of this machine."""

    step: int
    path: Path


@dataclass(frozen=True)
class Claim:
    """A worker's right to run a job, with everything that the run needs.

    Each of several machines has its own; that of the main machine, with rank 0, is the right to report the run.

    Attributes:
        config: config of a trainer of the core as JSON, such as TrainConfig; each model is a path.
        gpus: indices of the GPUs of the machine that the job can use.
        machines: number of machines that run the job together.
        rank: place of this machine among them.
        checkpoints: checkpoints from which the job can continue, by step.
        files: data that must be on the machine before the trainer starts.
        hub_models: models of the hub that must be there too.
        seconds_run: run time in seconds of all earlier attempts.
        project: project of the job, whose reward services it can use.
    """

    job_id: UUID
    attempt: int
    token: UUID
    kind: JobKind
    config: dict[str, Any]
    gpus: tuple[int, ...] = ()
    checkpoints: tuple[KnownCheckpoint, ...] = ()
    files: tuple[datasets.LocalFile, ...] = ()
    hub_models: tuple[HubSnapshot, ...] = ()
    limits: Limits = field(default_factory=Limits)
    seconds_run: float = 0.0
    machines: int = 1
    rank: int = 0
    project: str = ""

    @property
    def processes(self) -> int:
        """Number of training processes on this machine: one per GPU, without the GPUs of servers of rollouts."""
        return max(1, len(self.gpus) - (self.config.get("rollout", {}).get("server_gpus") or 0))

    @property
    def launched(self) -> bool:
        """True if a launcher starts the training processes, because there are several."""
        return self.machines * self.processes > 1


class Order(StrEnum):
    """Order to the worker in the response to a heartbeat."""

    CONTINUE = "continue"
    CANCEL = "cancel"  # by a user: end the job
    PAUSE = "pause"  # by a user: write a checkpoint, then pause
    STOP = "stop"  # the worker stops, or the job is preempted: write a checkpoint, then give the job back
    END = "end"  # the trainer on another machine of the job has ended: end this one, report it, write nothing else
    ABANDON = "abandon"  # the lease is lost: kill the trainer, write nothing


class LeaseLost(Exception):
    """The claim no longer holds the job: another worker may hold it, or it has ended."""


@dataclass(frozen=True)
class Outcome:
    """End of a claim. QUEUED gives the job back; it continues from its last checkpoint."""

    status: Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED, JobStatus.PAUSED]
    reason: Reason | None = None
    message: str | None = None
    result: dict[str, Any] | None = None


def claim(session: Session, *, worker: str) -> Claim | None:
    """Claim the job that can start on this worker now, or return None."""
    queue.lock(session)
    locked: frozenset[UUID] = frozenset()  # locked by another transaction at this moment
    while True:
        placements = startable(session, locked)
        place = next((placement for placement in placements if placement.workers[0] == worker), None)
        if place is None:
            return None
        job = jobs.lock_queued(session, place.job_id)
        lease = _take(session, job, place.workers) if job else None
        if lease is not None:
            return lease
        locked |= {place.job_id}


def _take(session: Session, job: models.Job, names: Sequence[str]) -> Claim | None:
    """Lease a locked job to these workers, the main one first. Return None if its GPUs are not available, or if the job
    failed because its spec is not valid any more."""
    token = uuid4()
    try:
        claim = described(session, job, token)
    except SpecNoLongerValid as error:
        change(session, job, JobStatus.FAILED, actor=SCHEDULER, reason=error.reason, message=str(error))
        return None
    gpus = _take_gpus(session, job, names)
    if gpus is None:
        return None
    seconds = get_settings().lease_seconds
    jobs.lease(session, job, token, names[0], seconds)
    job_machines.add(session, job, token, names, seconds)
    change(session, job, JobStatus.RUNNING, type="claimed", actor=names[0], message=_names(gpus))
    for worker in names[1:]:
        wake_after_commit(session, worker)
    ran = jobs.seconds_run(session, job)
    return replace(claim, attempt=job.attempt, gpus=gpus[names[0]], seconds_run=ran)


def described(session: Session, job: models.Job, token: UUID) -> Claim:
    """Return the claim of a job with everything that the run needs on this machine, without GPUs.

    Raises:
        SpecNoLongerValid: something that the spec names is not there any more.
    """
    dataset_rows = known_datasets.lock_shared(session, [row.dataset_id for row in job.datasets])
    hub_models: list[HubSnapshot] = []

    def hub_model(model: HubModel) -> Path:
        hub_models.append(HubSnapshot(model.hub, str(model.revision), job.project))
        return hub_models[-1].path

    config = trainer_config(
        job.spec,
        lambda model: _checkpoint(session, job.id, model),
        lambda choice: _data(dataset_rows, choice),
        hub_model,
    )
    return Claim(
        job_id=job.id,
        attempt=job.attempt,
        token=token,
        kind=job.kind,
        config=config,
        checkpoints=tuple(
            KnownCheckpoint(row.step, artifacts.checkpoint_path(row)) for row in checkpoints.of_job(session, job.id)
        ),
        files=datasets.files(dataset_rows),
        hub_models=tuple(dict.fromkeys(hub_models)),
        limits=limited(Limits.model_validate(job.spec["limits"]), projects.get(session, job.project)),
        machines=job.machines,
        project=job.project,
    )


def _take_gpus(session: Session, job: models.Job, names: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """Assign free GPUs of machines to a job and return their indices by machine, or None if one has too few."""
    chosen: dict[str, tuple[int, ...]] = {}
    for name in sorted(names):  # the order in which they are released: this prevents deadlocks
        gpus = choose_gpus(workers.lock_free_gpus(session, name), job.gpus) if job.gpus else ()
        if gpus is None:
            return None
        chosen[name] = gpus
    for name, gpus in chosen.items():
        if gpus:
            workers.assign_gpus(session, name, job.id, gpus)
    return {name: chosen[name] for name in names}


def fence(session: Session, claim: Claim) -> models.Job:
    """Lock and return the job of a claim until the session ends. Every write of a run starts with this.

    `fence` is the term for a check that rejects writes of an old lease holder. An expired lease still holds until a
    sweep takes the job away, so a database that was down for a while ends no run.

    Raises:
        LeaseLost: the claim no longer holds the job.
    """
    job = jobs.lock_leased(session, claim.job_id, claim.token)
    if job is None:
        raise LeaseLost(f"attempt {claim.attempt} no longer holds job {claim.job_id}")
    return job


def heartbeat(session: Session, claim: Claim) -> Order:
    """Renew the lease and return the order to the worker of the main machine."""
    job = jobs.lock_leased(session, claim.job_id, claim.token) or _taken_back(session, claim)
    if job is None:
        return Order.ABANDON
    jobs.renew(job, get_settings().lease_seconds)
    if job.status is JobStatus.CANCELLING:
        return Order.CANCEL
    if job.status is JobStatus.PAUSING:
        return Order.PAUSE
    if job.preempted or workers.any_stops(session, job.id):
        return Order.STOP
    others = job_machines.of_job(session, job.id)[1:] if job.machines > 1 else []
    return Order.END if any(part.reason for part in others) else Order.CONTINUE


def _taken_back(session: Session, claim: Claim) -> models.Job | None:
    """Return a job to this claim, whose trainer still runs, after a sweep took it for lost. Return None if a worker has
    claimed it meanwhile, if a user changed its status, or if its GPUs have another job."""
    job = jobs.lock_lost(session, claim.job_id, claim.attempt) if claim.machines == 1 else None
    if job is None:
        return None
    worker = attempts.last_worker(session, job)
    if set(claim.gpus) - set(workers.lock_unheld_gpus(session, worker)):
        return None
    workers.assign_gpus(session, worker, job.id, claim.gpus)
    seconds = get_settings().lease_seconds
    attempts.restore(session, job, claim.token, worker, seconds)
    job_machines.add(session, job, claim.token, [worker], seconds)
    change(session, job, JobStatus.RUNNING, type="taken_back", actor=worker, message="its trainer was still running")
    return job


def start(session: Session, claim: Claim) -> None:
    """Record that the trainer runs.

    Raises:
        LeaseLost: the claim no longer holds the job.
    """
    job = fence(session, claim)
    job.delays = 0
    events.add(session, job.id, "started", actor=_holder(job), message=f"attempt {job.attempt}")


def finish(session: Session, claim: Claim, outcome: Outcome) -> None:
    """End a claim. Jobs that depend on this job are queued or fail with it.

    Raises:
        LeaseLost: the claim no longer holds the job.
    """
    job = fence(session, claim)
    worker = _holder(job)
    job.result = outcome.result
    status: JobStatus = outcome.status
    reason = outcome.reason
    if job.status is JobStatus.CANCELLING:
        status, reason = JobStatus.CANCELLED, Reason.USER
    elif job.status is JobStatus.PAUSING and status is JobStatus.QUEUED:
        status, reason = JobStatus.PAUSED, Reason.USER
    elif job.preempted and status is JobStatus.QUEUED:
        reason = Reason.PREEMPTED
    message = outcome.message
    if status in GOES_ON:
        message = "; ".join(filter(None, (message, note_lost_steps(session, job, worker)))) or None
    if reason is Reason.STORAGE_AWAY and status is JobStatus.QUEUED:
        status = _delayed(job)
    change(session, job, status, actor=worker, reason=reason, message=message)
    plan_after_commit(session, awake=worker)


def _delayed(job: models.Job) -> JobStatus:
    """Delay the next start of a job, twice as long each time. Return its status."""
    if job.delays >= MOST_DELAYS:
        return JobStatus.FAILED
    jobs.delay(job, min(FIRST_DELAY_SECONDS * 2**job.delays, LONGEST_DELAY_SECONDS))
    return JobStatus.QUEUED


def _checkpoint(session: Session, job_id: UUID, model: JobCheckpoint) -> Path:
    step = model.checkpoint if isinstance(model.checkpoint, int) else None
    if step is not None and (pinned := pinned_checkpoints.find_pinned(job_id, model.from_job, step)):
        return pinned
    checkpoint = checkpoints.choose(session, model.from_job, model.checkpoint)
    if checkpoint is None:
        of_step = "" if step is None else f" of step {step}"
        raise SpecNoLongerValid(Reason.DEPENDENCY_FAILED, f"job {model.from_job} has no checkpoint{of_step}")
    if path := artifacts.find_checkpoint(checkpoint):
        return path
    missing = artifacts.missing_checkpoints([checkpoint.step], [artifacts.checkpoint_path(checkpoint)])
    raise SpecNoLongerValid(Reason.DEPENDENCY_FAILED, f"job {model.from_job}: {missing}")


def _data(rows: Mapping[UUID, models.Dataset], choice: KnownData) -> FileData | HubData:
    if choice.dataset not in rows:
        raise SpecNoLongerValid(Reason.BAD_SPEC, f"dataset {choice.dataset} was deleted")
    return datasets.source(rows[choice.dataset], choice)


def _names(gpus: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the machines of a job, if there are several, and their GPUs, as text for people."""
    texts = {name: f"GPU{'s' if len(own) > 1 else ''} {', '.join(map(str, own))}" for name, own in gpus.items() if own}
    if len(gpus) == 1:
        return next(iter(texts.values()), None)
    return "; ".join(f"{name}: {texts[name]}" if name in texts else name for name in gpus)


def _holder(job: models.Job) -> str:
    return job.worker or SCHEDULER
