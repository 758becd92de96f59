"""The target of a fault: the stack, the jobs, and the jobs that it must affect."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos import orders, pids
from tests.chaos.cells import HELD, State
from tests.chaos.held_jobs import HeldJobs, Subject
from tests.chaos.machine import Machine
from tests.chaos.stack import ChaosStack
from tests.support.waiting import LIMIT_SECONDS

PHASE_SECONDS = 0.6  # between two polls of a supervisor


@dataclass
class Scene:
    """The target of a fault.

    `victims`: the jobs to hit. `struck`: time of the fault by this machine's clock. `accepted`: states of the victims
    whose order was accepted.
    """

    stack: ChaosStack
    held: HeldJobs
    rng: random.Random
    victims: list[Subject]
    struck: float = 0.0
    accepted: set[State] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def machine(self) -> Machine:
        """Machine that holds all victims."""
        name = self.victims[0].worker
        assert name is not None
        return self.stack.machine(name)

    def strike(self, blow: Callable[[], object] = lambda: None) -> None:
        """Apply the fault at a random moment of the supervisors' polls; then let every trainer continue immediately."""
        time.sleep(self.rng.uniform(0, PHASE_SECONDS))
        self.struck = time.time()
        blow()
        self.held.release()

    def until_taken(self) -> None:
        """Wait until the victims' jobs have been taken from their workers."""
        deadline = time.monotonic() + LIMIT_SECONDS
        waiting = list(self.victims)
        while waiting and time.monotonic() < deadline:
            waiting = [subject for subject in waiting if not taken(subject)]
            time.sleep(0.05)

    def until_stale_gone(self) -> None:
        """Wait until no trainer of the victims' first attempts is left; note those that stay."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (left := self._stale()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.notes += [
            f"{state}: the stale attempt's trainer {pid} still runs after {LIMIT_SECONDS:.0f} s" for state, pid in left
        ]

    def _stale(self) -> list[tuple[State, int]]:
        return [
            (subject.state, pid)
            for subject in self.victims
            if subject.state in HELD
            for pid in pids.trainers(subject.id, subject.attempt)
        ]


def taken(subject: Subject) -> bool:
    """Return True if the job has left its attempt: another attempt runs, or the job waits or has ended."""
    job = orders.job(subject.id)
    return job.attempt > subject.attempt or job.lease_token is None
