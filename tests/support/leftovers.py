"""Files and records that the janitor can find, and what it finds."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from calibrl.schemas import DAY, JobStatus
from jobs import janitor
from jobs.db import session_scope
from jobs.janitor import Finding
from jobs.repository import checkpoints, histograms, images, jobs, logs, metrics, samples
from jobs.settings import get_settings
from tests.support.job_steps import claim, finish, run, run_count, submit

TABLES = ("metrics", "histograms", "samples", "job_images", "log_chunks", "checkpoints")


def find() -> list[Finding]:
    return janitor.find(get_settings())


def clean() -> list[Finding]:
    return janitor.remove(find())


def counts(*tables: str) -> dict[str, int]:
    return {table: run_count(f"SELECT count(*) FROM {table}") for table in tables}


def folder(job_id: UUID, attempt: int = 1) -> Path:
    path = get_settings().run_dir(job_id, attempt)
    path.mkdir(parents=True, exist_ok=True)
    return path


def checkpoint(job_id: UUID, step: int, attempt: int = 1, *, size: int = 1000, name: str = "") -> Path:
    """A checkpoint's folder that no row names."""
    path = folder(job_id, attempt) / "checkpoints" / (name or f"step-{step:06d}")
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(size))
    return path


def note(job_id: UUID, step: int, path: Path) -> None:
    with session_scope() as session:
        checkpoints.record(session, job_id, step, str(path), False, {}, [])


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then), follow_symlinks=False)


def old_database() -> None:
    run("UPDATE projects SET created_at = now() - interval '1 year'")


def ended_job(*, days: float = 40, **changes: object) -> UUID:
    """A job that succeeded, with something in every table and in its folder."""
    id = submit(**changes)  # type: ignore[arg-type]
    claimed = claim()
    assert claimed.job_id == id
    fill(id)
    finish(claimed, JobStatus.SUCCEEDED)
    run("UPDATE jobs SET finished_at = now() - :days * interval '1 day' WHERE id = :id", days=days, id=id)
    return id


def fill(id: UUID, image: bytes = b"png") -> None:
    with session_scope() as session:
        metrics.upsert(session, id, [(1, datetime.now(UTC), {"loss/total": 1.0})])
        histograms.upsert(session, id, [(1, "length", [0.0, 1.0], [3])])
        samples.insert(session, id, 1, {"prompt_id": "p", "images": ["a"], "completions": []}, 10_000)
        images.put(session, id, "a", image)
        logs.append(session, jobs.lock(session, id), b"a line\n")
    note(id, 1, checkpoint(id, 1))
