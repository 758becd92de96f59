"""The files that a job leaves on disk: its checkpoints', and an evaluation's answers, as far as this process sees them.

Workers write them below their data folder. They are read here only from the job's own folder below this process's data
folder, and no link is followed: a run may have put anything there.
"""

import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

from calibrl.schemas import StoredFile
from jobs import models
from jobs.errors import Conflict, NotFound
from jobs.settings import get_settings

_TAIL = re.compile(r"(?:/(attempt-[0-9]+))?/checkpoints/([^/]+)$")
RESULTS = ("answers.jsonl",)  # of an evaluation: every single answer, see `calibrl_core.evaluate`


def checkpoint_path(checkpoint: models.Checkpoint) -> Path:
    """Return the folder that a checkpoint has below the data folder of this process, whether it exists or not.

    The stored path gives only the attempt and the name: the data folder may have moved since it was written.
    """
    job_dir = get_settings().job_dir(checkpoint.job_id)
    found = _TAIL.search(checkpoint.path)
    if found is None or found[2] in (".", ".."):
        return job_dir / "checkpoints" / f"step-{checkpoint.step:06d}"
    return job_dir / (found[1] or "") / "checkpoints" / found[2]


def find_checkpoint(checkpoint: models.Checkpoint) -> Path | None:
    """Return the folder that has a checkpoint's files, or None where the data folder of this process has none.

    A supervisor keeps links to a checkpoint in `kept/`, in case the trainer has just removed its own.
    """
    path = checkpoint_path(checkpoint)
    places = (path, path.parent.parent / "kept" / path.name)
    job_dir = get_settings().job_dir(checkpoint.job_id)
    return next((place for place in places if _visible(place, job_dir)), None)


def missing_checkpoints(steps: Collection[int], folders: Iterable[Path]) -> str:
    """Return the message for a job that can't go on: the database lists checkpoints, and none is on disk."""
    where = ", ".join(sorted({str(folder) for folder in folders}))
    return (
        f"The checkpoints of steps {', '.join(map(str, sorted(steps)))} are missing: expected in {where}. Mount that "
        "disk, or set CALIBRL_DATA_DIR to the folder that has them, then try again. To start at step 0, submit a new "
        "job."
    )


def checkpoint_folder(checkpoint: models.Checkpoint) -> Path:
    """Return the folder of a checkpoint, to read files from it.

    Raises:
        Conflict: this process can't read it.
    """
    folder = checkpoint_path(checkpoint)
    if _visible(folder, get_settings().job_dir(checkpoint.job_id)):
        return folder
    raise Conflict(
        f"The API can't read the checkpoint of step {checkpoint.step}: it is not at {folder}; its worker wrote it to "
        f"{checkpoint.path}. Have API and workers share the data folder (CALIBRL_DATA_DIR), or copy it from the "
        "worker's disk."
    )


def results_folder(job: models.Job) -> Path | None:
    """Where an evaluation's last attempt keeps its answers; None where there are none, or none yet.

    Raises:
        Conflict: there must be some, but not where this process can read them.
    """
    folder = get_settings().run_dir(job.id, job.attempt)
    if job.kind != "evaluate" or not job.attempt:
        return None
    if _visible(folder, get_settings().job_dir(job.id)):
        return folder
    raise Conflict(
        f"What job {job.id} left lies on its worker's disk, at {folder}, where the API can't read it, or was removed: "
        "have them share the data folder (CALIBRL_DATA_DIR), or copy it from there."
    )


def listing(folder: Path) -> list[StoredFile]:
    """The files below a folder, by name; links and whatever else is no plain file left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            path = Path(parent, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # removed since
            if stat.S_ISREG(status.st_mode):
                found.append(_described(path.relative_to(folder).as_posix(), status))
    return sorted(found, key=lambda file: file.name)


def results(folder: Path) -> list[StoredFile]:
    """An evaluation's files."""
    return [file for file in listing(folder) if file.name in RESULTS]


def pick(files: list[StoredFile], name: str) -> StoredFile:
    """The file of this name.

    Raises:
        NotFound: none of them has it.
    """
    for file in files:
        if file.name == name:
            return file
    raise NotFound(f"There is no file {name!r}; there are: {', '.join(file.name for file in files) or 'none'}.")


def open_file(folder: Path, file: StoredFile) -> BinaryIO:
    """A file of a listing, to read.

    Raises:
        NotFound: it is gone, or another one now.
    """
    try:
        handle = os.open(folder / file.name, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise NotFound(f"The file {file.name!r} is gone.") from error
    opened = os.fdopen(handle, "rb")
    if _described(file.name, os.fstat(handle)) != file:
        opened.close()
        raise NotFound(f"The file {file.name!r} is being replaced; ask again.")
    return opened


def _described(name: str, status: os.stat_result) -> StoredFile:
    return StoredFile(name=name, bytes=status.st_size, etag=f"{status.st_mtime_ns:x}-{status.st_size:x}")


def _visible(folder: Path, within: Path) -> bool:
    """Whether the folder is there, inside the other, with no link on the way from that."""
    try:
        inside = folder.is_relative_to(within) and ".." not in folder.parts
        return inside and folder.resolve(strict=True) == within.resolve(strict=True) / folder.relative_to(within)
    except OSError:
        return False
