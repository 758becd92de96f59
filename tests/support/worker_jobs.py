"""Jobs that a worker runs with the fake trainer, and what they have reported."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from calibrl.schemas import JobStatus, job_spec_adapter
from jobs import lifecycle, models
from jobs.db import session_scope
from jobs.repository import events, histograms, jobs, logs, metrics, samples
from jobs.settings import get_settings
from tests.support.fake_trainer import Behaviour
from tests.support.processes import processes_with
from tests.support.waiting import eventually

QUICK = {
    "CALIBRL_TRAINER": "tests.support.fake_trainer",
    "CALIBRL_HEARTBEAT_SECONDS": "0.2",
    "CALIBRL_LEASE_SECONDS": "600",  # which no process without a CPU reaches; tests that need its end set it
    "CALIBRL_SWEEP_SECONDS": "0.3",
    "CALIBRL_STOP_GRACE_SECONDS": "120",
    "CALIBRL_WORKER_NAME": "tester",
}

ENDLESS = 1_000_000  # steps of a job that the test ends: half a day, however long the observer waits for a CPU


def submit(behaviour: Behaviour = Behaviour.NORMAL, *, steps: int = 20, milliseconds: int = 10, **more: Any) -> UUID:
    spec = {
        "kind": "train",
        "name": "a test",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "steps": steps,
        "prompts_per_step": milliseconds,
        "seed": int(behaviour),
        "checkpoints": {"every_steps": 5},
    }
    with session_scope() as session:
        return lifecycle.submit(session, job_spec_adapter.validate_python(spec | more), actor="user").id


@contextmanager
def held_at(job_id: UUID, step: int) -> Iterator[None]:
    """Let the run of a job wait after a step, until the end of the block or a stop signal."""
    gate = get_settings().job_dir(job_id) / f"hold-step-{step}"
    gate.parent.mkdir(parents=True, exist_ok=True)
    gate.touch()
    yield
    gate.unlink()


def job(job_id: UUID) -> models.Job:
    with session_scope() as session:
        return jobs.get(session, job_id)


def event_types(job_id: UUID) -> list[str]:
    with session_scope() as session:
        return [event.type for event in events.page(session, job_id, after=0, limit=1000)]


def steps(job_id: UUID) -> list[int]:
    with session_scope() as session:
        return [row[0] for row in metrics.page(session, job_id, names=None, after_step=-1, limit=10_000)]


def log_text(job_id: UUID) -> str:
    with session_scope() as session:
        return logs.read(session, job_id, after=0, limit=10_000_000).decode()


def running_at(job_id: UUID, step: int) -> models.Job:
    """The job once its run has come this far."""

    def far_enough() -> models.Job | None:
        found = job(job_id)
        assert not found.status.final, found.message
        return found if found.status is JobStatus.RUNNING and found.step >= step else None

    found = eventually(far_enough)
    assert found is not None
    return found


def ended(job_id: UUID) -> models.Job:
    eventually(lambda: job(job_id).status.final)
    return job(job_id)


def trainers(job_id: UUID) -> list[int]:
    return processes_with(f"runs/{job_id}")


def assert_whole(job_id: UUID, total: int) -> None:
    """The job succeeded, and every step, histogram and sample is there exactly once."""
    found = job(job_id)
    assert (found.status, found.reason, found.message) == (JobStatus.SUCCEEDED, None, None)
    assert (found.step, found.steps_total) == (total, total)
    assert steps(job_id) == list(range(1, total + 1))
    with session_scope() as session:
        for name in ("rareness", "expert/gap"):
            rows = histograms.page(session, job_id, name=name, after_step=-1, limit=10_000)
            assert [row.step for row in rows] == list(range(1, total + 1))
        sampled = Counter(row.step for row in samples.page(session, job_id, step=None, after=0, limit=10_000))
    assert sampled == {step: 2 for step in range(1, total + 1) if step in (1, total) or step % 10 == 0}
