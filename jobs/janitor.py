"""What is left over: leases that ran out, folders and checkpoints that nothing names, ended jobs that their project
keeps no longer. Finding it changes nothing; removing it twice, or on several machines at once, does no harm.

Only what lies below the data folder's `runs` is ever removed, and no link there is followed.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from jobs import lifecycle
from jobs.db import session_scope
from jobs.repository import events, janitor, jobs
from jobs.settings import Settings

DAY = 86_400.0
CHECKPOINTS = ("checkpoints", "kept")  # of an attempt: its trainer's, and its supervisor's links to them
REMOVED = ".removed-"  # begins the name of a folder whose removal has begun

log = structlog.get_logger()


class Kind(StrEnum):
    LEASE = "lease"  # it ran out: the sweep gives the job to another worker, or ends it
    ORPHAN_RUN = "orphan_run"  # a run's folder of which the database knows no job
    ORPHAN_CHECKPOINT = "orphan_checkpoint"  # of an attempt that has ended, and no row names it
    RETENTION = "retention"  # a job that ended longer ago than its project keeps it


@dataclass(frozen=True)
class Finding:
    """Something to remove. `path`: the folder, where there is one here; `bytes`: what is freed, on disk and in the
    database."""

    kind: Kind
    job_id: UUID
    path: Path | None
    bytes: int
    why: str


class NotDue(Exception):
    """A job that is not to be forgotten after all."""


def find(settings: Settings) -> list[Finding]:
    """All that could be removed now, as seen from this machine; at most `AT_ONCE` jobs of those kept too long."""
    # First the folders, then the database: a job is in there before it has a folder.
    folders = _run_folders(settings)
    with session_scope() as session:
        leases = janitor.expired(session, settings.lease_seconds)
        known = janitor.known(session, folders.keys())
        due = {row.id: row for row in _due(session, folders.keys())}
        named = {_in_job(job_id, path) for job_id, path in janitor.checkpoint_paths(session, known.keys())}
        born = janitor.born(session).timestamp()
    findings = [*_cut_short(settings), *map(_lease, leases)]
    for job_id, folder in folders.items():
        if job_id not in known:
            findings += _orphan_run(job_id, folder, born)
        elif job_id not in due and not known[job_id].leased:
            findings += _orphan_checkpoints(known[job_id], folder, named)
    return findings + [_retention(row, folders.get(row.id)) for row in due.values()]


def remove(findings: Sequence[Finding]) -> list[Finding]:
    """Remove what was found; those that are gone now. What can't be removed is logged, and tried again next time."""
    if any(found.kind is Kind.LEASE for found in findings):
        with session_scope() as session:
            lifecycle.sweep(session)
    done = []
    for found in findings:
        try:
            path = _forget(found) if found.kind is Kind.RETENTION else found.path
            if path:
                with suppress(FileNotFoundError):  # by another machine that shares the disk
                    shutil.rmtree(path)
        except NotDue:
            continue
        except OSError as error:  # one folder that can't be removed must not keep all others
            log.warning("not removed", kind=found.kind, path=str(found.path), error=str(error))
            continue
        done.append(found)
    return done


def _forget(found: Finding) -> Path | None:
    """Forget what the database has of a job, and set its folder aside; the folder's new path.

    Raises:
        NotDue: it is needed again meanwhile.
    """
    aside = None
    with session_scope() as session:
        jobs.lock(session, found.job_id)  # nobody retries it meanwhile, and nobody comes to depend on it
        if not _due(session, [found.job_id], only=True):
            raise NotDue
        if janitor.forget(session, found.job_id):
            message = "curves, samples, log and checkpoints: its project keeps them no longer"
            events.add(session, found.job_id, "forgotten", actor="janitor", message=message)
        if found.path and found.path.exists():  # out of the way of a retry; removing it takes longer than a lock may
            aside = found.path.rename(found.path.with_name(REMOVED + found.path.name))
    return aside


def _due(session: Session, ids: Any, *, only: bool = False) -> list[Row[Any]]:
    """Jobs past their retention of which no unended job names a file either."""
    used = {part for path in janitor.paths_in_use(session) for part in Path(path).parts}
    return [row for row in janitor.past_retention(session, ids, only=only) if str(row.id) not in used]


def _lease(row: Row[Any]) -> Finding:
    why = f"worker {row.worker} is {row.seconds:.0f} s late in renewing it (attempt {row.attempt})"
    return Finding(Kind.LEASE, row.id, None, 0, why)


def _cut_short(settings: Settings) -> Iterator[Finding]:
    for path in _folders(_runs(settings), f"{REMOVED}*"):
        if job_id := _as_id(path.name.removeprefix(REMOVED)):
            yield Finding(Kind.ORPHAN_RUN, job_id, path, _measure(path)[0], "its removal was cut short")


def _orphan_run(job_id: UUID, path: Path, born: float) -> Iterator[Finding]:
    """Not while it is young, and not where the database is younger: another one may know it, or it is all that is left
    of a database that was lost."""
    size, changed = _measure(path)
    if born < changed < time.time() - DAY:
        yield Finding(Kind.ORPHAN_RUN, job_id, path, size, "the database knows no such job")


def _orphan_checkpoints(row: Row[Any], folder: Path, named: set[tuple[UUID, str, str]]) -> Iterator[Finding]:
    for attempt in _folders(folder, "attempt-[0-9]*"):
        if int(attempt.name.removeprefix("attempt-")) > row.attempt:
            continue  # it has begun since the database was asked
        for path in (path for name in CHECKPOINTS for path in _folders(attempt / name, "*")):
            if _in_job(row.id, str(path)) not in named:
                half = path.name.startswith(".partial-") or path.suffix == ".partial"
                why = f"{attempt.name} has ended, and {'left it half written' if half else 'nothing names it'}"
                yield Finding(Kind.ORPHAN_CHECKPOINT, row.id, path, _measure(path)[0], why)


def _retention(row: Row[Any], folder: Path | None) -> Finding:
    size = row.bytes + (_measure(folder)[0] if folder else 0)
    why = f"ended {row.days:.0f} days ago; project {row.project} keeps {row.retention_days}"
    return Finding(Kind.RETENTION, row.id, folder, size, why)


def _in_job(job_id: UUID, path: str) -> tuple[UUID, str, str]:
    """A checkpoint by its job, attempt and name: wherever the data folder has been moved to since."""
    return job_id, Path(path).parent.parent.name, Path(path).name


def _runs(settings: Settings) -> Path:
    return settings.data_dir / "runs"


def _run_folders(settings: Settings) -> dict[UUID, Path]:
    """The folders that are named as a job's is."""
    return {job_id: path for path in _folders(_runs(settings), "*") if (job_id := _as_id(path.name))}


def _folders(parent: Path, pattern: str) -> list[Path]:
    """The folders in one that is no link, links left out; by name."""
    if parent.is_symlink():
        return []
    return sorted(path for path in parent.glob(pattern) if path.is_dir() and not path.is_symlink())


def _as_id(name: str) -> UUID | None:
    with suppress(ValueError):
        if str(UUID(name)) == name:
            return UUID(name)
    return None


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes that are freed with a folder (a file that also lies elsewhere frees none), and when it last changed."""
    links: Counter[tuple[int, int]] = Counter()
    size, changed = 0, 0.0
    for parent, _, files in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in files)):  # noqa: PTH118
            with suppress(FileNotFoundError):
                status = os.lstat(path)
                changed = max(changed, status.st_mtime)
                links[status.st_dev, status.st_ino] += path != parent
                if path != parent and links[status.st_dev, status.st_ino] == status.st_nlink:
                    size += status.st_size
    return size, changed
