"""A machine of the queue that a benchmark simulates, and jobs that fill the list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from calibrl.schemas import JobStatus, job_spec_adapter
from jobs import lifecycle, models
from jobs.db import session_scope
from jobs.lifecycle import Claim, Outcome
from jobs.repository import workers

AT_ONCE = 1000  # rows of jobs per transaction
MACHINE = "bench"
SPEC: dict[str, Any] = {
    "kind": "train",
    "name": "bench",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "algorithm": {"type": "grpo", "mini_batches": 1},
    "steps": 1_000_000,
    "samples": {"max_megabytes": 1000},
}


class HoldingMachine:
    """A machine of the queue whose jobs this process holds. It never has a free slot, so it gets no wake-ups."""

    def __init__(self) -> None:
        self._held = 0

    def hold(self, count: int) -> list[Claim]:
        """Add and claim jobs, which then run on this machine. The queue must have no other jobs."""
        for _ in range(count):
            with session_scope() as session:
                lifecycle.submit(session, job_spec_adapter.validate_python(SPEC), actor=MACHINE)
        self._have_slots(self._held + count)
        claims = []
        for _ in range(count):
            with session_scope() as session:
                claim = lifecycle.claim(session, worker=MACHINE)
            assert claim is not None, "nothing was queued for the benchmark's machine"
            claims.append(claim)
        return claims

    def finish(self, claims: Sequence[Claim]) -> None:
        """End held jobs."""
        for claim in claims:
            with session_scope() as session:
                lifecycle.finish(session, claim, Outcome(JobStatus.SUCCEEDED))
        self._have_slots(self._held - len(claims))

    def _have_slots(self, count: int) -> None:
        self._held = count
        with session_scope() as session:
            workers.register(session, MACHINE, host=MACHINE, labels={}, versions={}, cpu_slots=count)


def add_jobs(count: int) -> None:
    """Insert ended jobs directly into the table: the benchmark only lists them."""
    spec = job_spec_adapter.validate_python(SPEC).model_dump(mode="json")
    now = datetime.now(UTC)
    for first in range(0, count, AT_ONCE):
        with session_scope() as session:
            session.add_all(
                models.Job(
                    id=uuid4(),
                    name=f"job {number}",
                    kind="train",
                    project=spec["project"],
                    user=MACHINE,
                    priority=spec["priority"],
                    labels={},
                    gpus=0,
                    spec=spec,
                    status=JobStatus.SUCCEEDED,
                    created_at=now - timedelta(seconds=number),
                )
                for number in range(first, min(first + AT_ONCE, count))
            )
