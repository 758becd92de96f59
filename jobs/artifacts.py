"""The files that a job leaves on disk: its checkpoints', and an evaluation's answers, as far as this process sees them.

Workers write them below their data folder, and say in the database where. They are read here only where that is in the
job's own folder of this process's data folder, and no link is followed: a run may have put anything there.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from jobs import models
from jobs.errors import Conflict, NotFound
from jobs.schemas import StoredFile
from jobs.settings import get_settings

RESULTS = ("answers.jsonl",)  # of an evaluation: every single answer, see `calibrl_core.evaluate`


def checkpoint_folder(checkpoint: models.Checkpoint) -> Path:
    """Where a checkpoint lies.

    Raises:
        Conflict: not where this process can read it.
    """
    folder = Path(checkpoint.path)
    if _visible(folder, get_settings().job_dir(checkpoint.job_id)):
        return folder
    raise Conflict(
        f"The checkpoint of step {checkpoint.step} lies on its worker's disk, at {checkpoint.path}, where the API "
        "can't read it: have them share the data folder (CALIBRL_DATA_DIR), or copy it from there."
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
