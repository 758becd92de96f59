"""A job in every state at the same time: held trainers, and jobs that have not started."""

import random
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from calibrl.schemas import JobStatus
from jobs import lifecycle
from jobs.repository import checkpoints
from jobs.settings import get_settings
from tests.chaos import disk, orders
from tests.chaos.cells import State
from tests.support.waiting import eventually

STEPS, EVERY = 40, 10
MILLISECONDS = 15
SEEDS = 4  # different runs, each of which is also run once without faults

# Points at which a job's trainer is held until the fault.
HOLDS: dict[State, tuple[str, ...]] = {
    State.PAUSED: ("step-14",),
    State.PAUSING: ("step-14", "stopping"),
    State.CANCELLING: ("step-14", "stopping"),
    State.BEFORE: ("step-4",),
    State.AFTER: ("step-14",),
    State.SAVING: ("saving-20",),
    State.FINISHING: ("finishing",),
}
WITH_GPU = (State.AFTER, State.FINISHING)
STATUSES = {
    State.QUEUED: JobStatus.QUEUED,
    State.WAITING: JobStatus.WAITING,
    State.PAUSING: JobStatus.PAUSING,
    State.PAUSED: JobStatus.PAUSED,
    State.CANCELLING: JobStatus.CANCELLING,
}  # jobs in the other states run


@dataclass
class Subject:
    """A job, as it was before the fault."""

    state: State
    id: UUID
    attempt: int = 0
    worker: str | None = None
    step: int = 0
    on_small_disk: bool = False

    @property
    def folder(self) -> Path:
        """Return the folder of all attempts of a job."""
        return get_settings().job_dir(self.id)

    def wait_held(self, point: str) -> None:
        """Wait until the trainer is held at its point."""
        eventually((self.folder / f"held-{point}").exists)

    def release(self) -> None:
        """Let the trainer of the job, and its successors, continue."""
        for gate in self.folder.glob("hold-*"):
            gate.unlink(missing_ok=True)


def spec(name: str, seed: int, **more: Any) -> dict[str, Any]:
    """Return a spec for the fake trainer."""
    return {
        "kind": "train",
        "name": name,
        "model": {"builtin": "tiny-vlm", "seed": seed},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "steps": STEPS,
        "prompts_per_step": MILLISECONDS,
        "checkpoints": {"every_steps": EVERY},
        "samples": {"every_steps": EVERY},
    } | more


class HeldJobs:
    """Jobs in every state. `small_disks`: states whose job gets a small separate disk."""

    def __init__(self, rng: random.Random, small_disks: Collection[State] = ()) -> None:
        self._rng = rng
        self._small_disks = small_disks
        self.subjects: dict[State, Subject] = {}

    def set_up(self) -> None:
        """Submit the jobs and bring each into its state."""
        for state in HOLDS:
            self._submit(state)
        for state in (State.PAUSED, State.PAUSING, State.CANCELLING, State.AFTER):
            self._await_checkpoint(self.subjects[state])
        self._order(lifecycle.pause, State.PAUSED)
        self._order(lifecycle.pause, State.PAUSING)
        self._order(lifecycle.cancel, State.CANCELLING)
        for state, points in HOLDS.items():
            self.subjects[state].wait_held(points[-1])
        self._submit(State.QUEUED)
        self._submit(State.WAITING, depends_on=[str(self.subjects[State.BEFORE].id)])
        for subject in self.subjects.values():
            self._await_status(subject)

    def release(self) -> None:
        """Let every trainer continue."""
        for subject in self.subjects.values():
            subject.release()

    def clear(self) -> None:
        """Unmount the small disks."""
        for subject in self.subjects.values():
            if subject.on_small_disk:
                disk.unmount(subject.folder)

    def _submit(self, state: State, **more: Any) -> None:
        gpus = int(state in WITH_GPU)
        given = spec(f"chaos {state}"[:60].replace("1st", "first"), self._rng.randrange(SEEDS), **more)
        subject = Subject(state, UUID(int=0), on_small_disk=state in self._small_disks)

        def prepare(job_id: UUID) -> None:
            subject.id = job_id
            subject.folder.mkdir(parents=True)
            if subject.on_small_disk:
                disk.mount(subject.folder)
            for point in HOLDS.get(state, ()):
                (subject.folder / f"hold-{point}").touch()

        orders.submit(given | {"resources": {"gpus": gpus}}, prepare)
        self.subjects[state] = subject

    def _order(self, order: Any, state: State) -> None:
        assert orders.ordered(order, self.subjects[state].id), f"{state}: refused"

    def _await_checkpoint(self, subject: Subject) -> None:
        subject.wait_held("step-14")
        eventually(
            lambda: (
                orders.asked(lambda session: checkpoints.of_job(session, subject.id))
                and orders.job(subject.id).step >= 14
            )
        )

    def _await_status(self, subject: Subject) -> None:
        wanted = STATUSES.get(subject.state, JobStatus.RUNNING)
        with suppress(AssertionError):
            eventually(lambda: orders.job(subject.id).status is wanted)
        job = orders.job(subject.id)
        assert job.status is wanted, f"the job to be {subject.state} is {job.status}: {job.message}"
        subject.attempt, subject.worker, subject.step = job.attempt, job.worker, job.step
