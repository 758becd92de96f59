"""Single steps of a job's life, each in its own transaction, for tests of the lifecycle."""

from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from sqlalchemy import text

from calibrl.schemas import Event, GpuReading, JobStatus, ProjectSettings, job_spec_adapter
from jobs import lifecycle, models, queue
from jobs.db import session_scope
from jobs.lifecycle import Claim, Order, Outcome, Swept
from jobs.repository import checkpoints, events, jobs, projects, workers
from jobs.settings import get_settings


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
    return submit_spec(spec)


def submit_spec(spec: dict[str, Any]) -> UUID:
    with session_scope() as session:
        return lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor="user").id


def checkpoint(job_id: UUID, step: int, *, best: bool = False, attempt: int = 1, text: str = "weights") -> Path:
    """A checkpoint of an attempt, on disk and in the database."""
    path = get_settings().run_dir(job_id, attempt) / "checkpoints" / f"step-{step:06d}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_text(text)
    with session_scope() as session:
        checkpoints.record(session, job_id, step, str(path), best, {}, [])
    return path


def card(index: int) -> GpuReading:
    return GpuReading(
        index=index, name="card", uuid=f"GPU-{index}", memory_total=80_000_000_000, memory_used=0, utilisation=0.0
    )


def machine(name: str = "w", *, cpu_slots: int = 20, gpus: int = 0, labels: dict[str, str] | None = None) -> None:
    """A machine that takes jobs; its GPUs are free."""
    with session_scope() as session:
        workers.register(session, name, host="h", labels=labels or {}, versions={}, cpu_slots=cpu_slots)
        workers.record_heartbeat(session, name, [card(index) for index in range(gpus)], [])
        workers.mark_clean(session, name, set(range(gpus)))


def project(slug: str, **settings: Any) -> None:
    with session_scope() as session:
        projects.put(session, slug, ProjectSettings(**settings).model_dump())


def the_only(name: str) -> None:
    """Have no other machine take jobs, and this one some: what is claimed is then claimed here."""
    run("UPDATE workers SET status = 'draining' WHERE name != :name", name=name)
    with session_scope() as session:
        known = session.get(models.Worker, name) is not None
    if known:
        run("UPDATE workers SET status = 'online' WHERE name = :name", name=name)
    else:
        machine(name, gpus=2)


def claim(worker: str = "w") -> Claim:
    the_only(worker)
    with session_scope() as session:
        found = lifecycle.claim(session, worker=worker)
    assert found is not None
    return found


def claimed(worker: str) -> Claim:
    """The claim of the job that starts on this machine now; other machines can take jobs too."""
    with session_scope() as session:
        found = lifecycle.claim(session, worker=worker)
    assert found is not None
    return found


def taken(worker: str) -> Claim:
    """The part of a job on several machines that waits for this machine."""
    with session_scope() as session:
        found = lifecycle.take_part(session, worker=worker)
    assert found is not None
    return found


def nothing_to_claim(worker: str = "w") -> bool:
    the_only(worker)
    with session_scope() as session:
        return lifecycle.claim(session, worker=worker) is None


def finish(claimed: Claim, status: Any, **outcome: Any) -> None:
    with session_scope() as session:
        lifecycle.finish(session, claimed, Outcome(status, **outcome))


def cancel(job_id: UUID) -> JobStatus:
    with session_scope() as session:
        return lifecycle.cancel(session, job_id, actor="user").status


def pause(job_id: UUID) -> JobStatus:
    with session_scope() as session:
        return lifecycle.pause(session, job_id, actor="user").status


def resume(job_id: UUID) -> JobStatus:
    with session_scope() as session:
        return lifecycle.resume(session, job_id, actor="user").status


def retry(job_id: UUID) -> JobStatus:
    with session_scope() as session:
        return lifecycle.retry(session, job_id, actor="user").status


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
    late = "now() - interval '1 second'"
    run(f"UPDATE jobs SET lease_expires_at = {late} WHERE id = :id AND lease_token IS NOT NULL", id=job_id)


def expire_parts() -> None:
    """Let the time of all machines run out but that of main machines."""
    run("UPDATE job_machines SET expires_at = now() - interval '1 second' WHERE rank > 0")


def run(statement: str, **values: Any) -> None:
    with session_scope() as session:
        session.execute(text(statement), values)


def run_count(statement: str) -> int:
    with session_scope() as session:
        return int(session.execute(text(statement)).scalar_one())


def waiting_wakes(url: str, *names: str) -> dict[str, int]:
    with redis.Redis.from_url(url) as client:
        return {name: int(client.llen(queue.queue_name(name))) for name in names}
