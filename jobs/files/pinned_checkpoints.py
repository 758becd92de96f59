"""Checkpoints from which a job starts, pinned for it: hard links in its own folder, which stay when the other job
removes its checkpoints."""

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

import structlog

from jobs.files.artifacts import checkpoint_path
from jobs.files.hard_links import link_tree
from jobs.models import Checkpoint
from jobs.settings import get_settings

log = structlog.get_logger()


def pin(job_id: UUID, checkpoints: Iterable[Checkpoint]) -> None:
    """Link checkpoints into the folder of a job. If a link is not possible, for example without a shared disk, the
    original is used as long as it exists."""
    for checkpoint in checkpoints:
        folder, path = _folder(job_id, checkpoint.job_id), checkpoint_path(checkpoint)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            backup = (
                path.parent.parent / "kept" / path.name
            )  # by the supervisor, if the trainer has just removed its own
            link_tree(path, folder, or_copy=False) or link_tree(backup, folder, or_copy=False)
        except OSError as error:
            log.warning("checkpoint not kept", job_id=str(job_id), path=str(path), error=str(error))


def find_pinned(job_id: UUID, from_job: UUID, step: int) -> Path | None:
    """Return the folder of a pinned checkpoint, or None."""
    path = _folder(job_id, from_job) / f"step-{step:06d}"
    return path if path.is_dir() else None


def _folder(job_id: UUID, from_job: UUID) -> Path:
    return get_settings().job_dir(job_id) / "origins" / str(from_job)
