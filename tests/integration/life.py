"""A job's life in single steps, each in a transaction of its own: what tests of the lifecycle are written with."""

from typing import Any
from uuid import UUID

import redis
from sqlalchemy import text

from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, Order, Outcome, Swept
from jobs.repository import events, jobs
from jobs.schemas import Event, JobStatus, job_spec_adapter


def submit(*after: UUID, model: dict[str, Any] | None = None, **changes: Any) -> UUID:
    spec = {
        "kind": "train",
        "name": "a job",
        "model": model or {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "steps": 5,
        "depends_on": [str(id) for id in after],
        **changes,
    }
    with session_scope() as session:
        return lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor="user").id


def claim(worker: str = "w", gpus: int = 0) -> Claim:
    with session_scope() as session:
        found = lifecycle.claim(session, worker=worker, gpus=gpus)
    assert found is not None
    return found


def nothing_to_claim(gpus: int = 0) -> bool:
    with session_scope() as session:
        return lifecycle.claim(session, worker="w", gpus=gpus) is None


def finish(claimed: Claim, status: Any, **outcome: Any) -> None:
    with session_scope() as session:
        lifecycle.finish(session, claimed, Outcome(status, **outcome))


def cancel(job_id: UUID) -> JobStatus:
    with session_scope() as session:
        return lifecycle.cancel(session, job_id, actor="user").status


def heartbeat(claimed: Claim) -> Order:
    with session_scope() as session:
        return lifecycle.heartbeat(session, claimed)


def sweep() -> Swept:
    with session_scope() as session:
        return lifecycle.sweep(session)


def status(job_id: UUID) -> JobStatus:
    with session_scope() as session:
        return jobs.get(session, job_id).status


def history(job_id: UUID) -> list[Event]:
    with session_scope() as session:
        return [Event.model_validate(event) for event in events.page(session, job_id, after=0, limit=100)]


def expire(job_id: UUID) -> None:
    run("UPDATE jobs SET lease_expires_at = now() - interval '1 second' WHERE id = :id", id=job_id)


def run(statement: str, **values: Any) -> None:
    with session_scope() as session:
        session.execute(text(statement), values)


def waiting_wakes(url: str) -> dict[str, int]:
    with redis.Redis.from_url(url) as client:
        return {queue: int(client.llen(queue)) for queue in ("cpu", "gpu")}
