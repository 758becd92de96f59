"""The janitor: finds and removes leftovers: expired leases, folders and checkpoints without a row, ended jobs past the
retention of their project, and unused models of the hub. Finding changes nothing. Removing twice, or on several
machines at once, is safe.

Only folders below `runs` and `cache/models` in the data folder are removed, and no link there is followed. What only
the absence of a row shows to be a leftover goes to `runs/.trash/<day>` first, except for incomplete checkpoints.
"""

import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from errno import ENOTDIR
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from calibrl.schemas import DAY
from jobs import lifecycle
from jobs.db import session_scope
from jobs.files import hub_models
from jobs.repository import events, janitor, jobs
from jobs.settings import Settings

CHECKPOINTS = ("checkpoints", "kept")  # folders of an attempt: of its trainer, and of its supervisor's links
RUNS, TRASH = "runs", ".trash"
TRASH_DAYS = 7
REMOVED = ".removed-"  # prefix of a folder whose removal has begun

log = structlog.get_logger()


class Kind(StrEnum):
    """Kinds of things that the janitor removes or ends."""

    LEASE = "lease"  # expired: the sweep gives the job to another worker, or ends it
    ORPHAN_RUN = "orphan_run"  # folder of a run without a job in the database
    ORPHAN_CHECKPOINT = "orphan_checkpoint"  # checkpoint of an ended attempt without a row
    RETENTION = "retention"  # job past the retention of its project
    TRASH = "trash"  # a day's folder of the trash past its term
    HUB_MODEL = "hub_model"  # downloaded model that no job has used for a week


TO_TRASH = (Kind.ORPHAN_RUN, Kind.ORPHAN_CHECKPOINT)  # also the traces of a restored database: not removed at once


@dataclass(frozen=True)
class Finding:
    """Something to remove, or to move to the trash. `job_id`: None for what belongs to no job. `path`: its folder on
    this machine, if there is one. `bytes`: freed bytes on disk and in the database."""

    kind: Kind
    job_id: UUID | None
    path: Path | None
    bytes: int
    why: str


class NotDue(Exception):
    """A job that must not be forgotten any more."""


def find(settings: Settings) -> list[Finding]:
    """Return everything that can be removed now, as seen from this machine; at most `AT_ONCE` jobs past their
    retention."""
    # First the folders, then the database: a job is in the database before it has a folder.
    folders = _run_folders(settings)
    with session_scope() as session:
        leases = janitor.expired(session, settings.lease_seconds)
        known = janitor.known(session, folders.keys())
        due = {row.id: row for row in _due(session, folders.keys())}
        named = {_in_job(job_id, path) for job_id, path in janitor.checkpoint_paths(session, known.keys())}
        born = janitor.database_created_at(session).timestamp()
        commits = janitor.commits_in_use(session)
    findings = [*_cut_short(settings), *map(_lease, leases)]
    for job_id, folder in folders.items():
        if job_id not in known:
            findings += _orphan_run(job_id, folder, born)
        elif job_id not in due and not known[job_id].leased:
            findings += _orphan_checkpoints(known[job_id], folder, named)
    findings += _old_trash(settings)
    findings += map(_hub_model, hub_models.unused(settings.data_dir / "cache" / "models", commits))
    return findings + [_retention(row, folders.get(row.id)) for row in due.values()]


def remove(findings: Sequence[Finding]) -> list[Finding]:
    """Remove findings. Return those that are gone. A failure is logged and tried again at the next run."""
    if any(finding.kind is Kind.LEASE for finding in findings):
        with session_scope() as session:
            lifecycle.sweep(session)
    done = []
    for finding in findings:
        try:
            path = _forget(finding) if finding.kind is Kind.RETENTION else finding.path
            if path and finding.kind is Kind.HUB_MODEL:
                if not hub_models.remove(path):
                    continue
            elif path and finding.kind in TO_TRASH and not (path.name.startswith(REMOVED) or _incomplete(path)):
                _put_aside(path)
            elif path:
                with suppress(FileNotFoundError):  # removed by another machine that shares the disk
                    shutil.rmtree(path)
        except NotDue:
            continue
        except OSError as error:  # one failure must not keep all other folders
            log.warning("not removed", kind=finding.kind, path=str(finding.path), error=str(error))
            continue
        done.append(finding)
    return done


def _put_aside(path: Path) -> None:
    """Move a folder of a run, or of a checkpoint, to the trash of the day."""
    run = next(parent for parent in (path, *path.parents) if parent.parent.name == RUNS)
    day = run.parent / TRASH / datetime.now(UTC).date().isoformat()
    target = day / path.relative_to(run.parent)
    with suppress(FileNotFoundError):  # moved by another machine that shares the disk
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(ENOTDIR, "not a folder", str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target if not target.exists() else target.with_name(f"{target.name}-{uuid4().hex[:8]}"))


def _old_trash(settings: Settings) -> Iterator[Finding]:
    for path in _folders(_runs(settings) / TRASH, "*"):
        with suppress(ValueError):
            if (datetime.now(UTC).date() - date.fromisoformat(path.name)).days > TRASH_DAYS:
                yield Finding(Kind.TRASH, None, path, _measure(path)[0], f"in the trash for {TRASH_DAYS} days")


def _forget(finding: Finding) -> Path | None:
    """Delete the data of a job in the database and rename its folder. Return the new path of the folder.

    Raises:
        NotDue: the job is needed again.
    """
    aside = None
    assert finding.job_id is not None
    with session_scope() as session:
        jobs.lock(session, finding.job_id)  # so that it cannot be retried or become a dependency
        if not _due(session, [finding.job_id], only=True):
            raise NotDue
        if janitor.forget(session, finding.job_id):
            message = "curves, samples, log and checkpoints were deleted after the retention of the project"
            events.add(session, finding.job_id, "forgotten", actor="janitor", message=message)
        if finding.path and finding.path.exists():  # renamed because removing takes longer than a lock may be held
            aside = finding.path.rename(finding.path.with_name(REMOVED + finding.path.name))
    return aside


def _due(session: Session, ids: Any, *, only: bool = False) -> list[Row[Any]]:
    """Return jobs past their retention whose files no unfinished job names."""
    used = {part for path in janitor.paths_in_use(session) for part in Path(path).parts}
    return [row for row in janitor.past_retention(session, ids, only=only) if str(row.id) not in used]


def _lease(row: Row[Any]) -> Finding:
    why = f"lease of worker {row.worker} expired {row.seconds:.0f} s ago (attempt {row.attempt})"
    return Finding(Kind.LEASE, row.id, None, 0, why)


def _cut_short(settings: Settings) -> Iterator[Finding]:
    for path in _folders(_runs(settings), f"{REMOVED}*"):
        if job_id := _as_id(path.name.removeprefix(REMOVED)):
            yield Finding(Kind.ORPHAN_RUN, job_id, path, _measure(path)[0], "its removal was interrupted")


def _orphan_run(job_id: UUID, path: Path, born: float) -> Iterator[Finding]:
    """Yield a run without a job, unless it is recent or older than the database: then another database may know it,
    or it is all that is left of a lost database."""
    size, changed = _measure(path)
    if born < changed < time.time() - DAY:
        yield Finding(Kind.ORPHAN_RUN, job_id, path, size, "its job is not in the database")


def _orphan_checkpoints(row: Row[Any], folder: Path, named: set[tuple[UUID, str, str]]) -> Iterator[Finding]:
    for attempt in _folders(folder, "attempt-[0-9]*"):
        if int(attempt.name.removeprefix("attempt-")) > row.attempt:
            continue  # it began after the query
        for path in (path for name in CHECKPOINTS for path in _folders(attempt / name, "*")):
            if _in_job(row.id, str(path)) not in named:
                size, changed = _measure(path)
                if changed > time.time() - DAY:
                    continue
                state = "incomplete" if _incomplete(path) else "not in the database"
                why = f"{attempt.name} has ended; the checkpoint is {state}"
                yield Finding(Kind.ORPHAN_CHECKPOINT, row.id, path, size, why)


def _incomplete(checkpoint: Path) -> bool:
    """Return True if a trainer was writing this checkpoint when it ended: no run can use it."""
    return checkpoint.name.startswith(".partial-") or checkpoint.suffix == ".partial"


def _retention(row: Row[Any], folder: Path | None) -> Finding:
    size = row.bytes + (_measure(folder)[0] if folder else 0)
    why = f"ended {row.days:.0f} days ago; retention of project {row.project}: {row.retention_days} days"
    return Finding(Kind.RETENTION, row.id, folder, size, why)


def _hub_model(path: Path) -> Finding:
    size, _ = _measure(path)
    return Finding(Kind.HUB_MODEL, None, path, size, "no job has used this model of the hub for a week")


def _in_job(job_id: UUID, path: str) -> tuple[UUID, str, str]:
    """Return job, attempt and name of a checkpoint, independent of the location of the data folder."""
    return job_id, Path(path).parent.parent.name, Path(path).name


def _runs(settings: Settings) -> Path:
    return settings.data_dir / RUNS


def _run_folders(settings: Settings) -> dict[UUID, Path]:
    """Return the folders whose name is the id of a job."""
    return {job_id: path for path in _folders(_runs(settings), "*") if (job_id := _as_id(path.name))}


def _folders(parent: Path, pattern: str) -> list[Path]:
    """Return the folders in a folder by name, without links."""
    if parent.is_symlink():
        return []
    return sorted(path for path in parent.glob(pattern) if path.is_dir() and not path.is_symlink())


def _as_id(name: str) -> UUID | None:
    with suppress(ValueError):
        if str(UUID(name)) == name:
            return UUID(name)
    return None


def _measure(folder: Path) -> tuple[int, float]:
    """Return the bytes that removing a folder frees (a file with further hard links frees none), and the time of its
    last change."""
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
