"""Files that a job leaves on disk: checkpoints, and the results of an evaluation or audit, as far as this process can
read them.

Workers write them below their data folder and record the path in the database. This process reads only paths inside the
job's folder of its own data folder, and follows no link: a run can put anything there.
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
RESULTS = ("answers.jsonl", "audit.jsonl")  # see `calibrl_core.evaluate` and `calibrl_core.audit`


def checkpoint_path(checkpoint: models.Checkpoint) -> Path:
    """Return the folder that a checkpoint has below the data folder of this process, whether it exists or not.

    The stored path gives only the attempt and the name: the data folder may have moved since it was written.
    """
    job_dir = get_settings().job_dir(checkpoint.job_id)
    match = _TAIL.search(checkpoint.path)
    if match is None or match[2] in (".", ".."):
        return job_dir / "checkpoints" / f"step-{checkpoint.step:06d}"
    return job_dir / (match[1] or "") / "checkpoints" / match[2]


def find_checkpoint(checkpoint: models.Checkpoint) -> Path | None:
    """Return the folder that has the files of a checkpoint, or None if the data folder of this process has none.

    A supervisor keeps links to a checkpoint in `kept/`, in case the trainer has just removed its own.
    """
    path = checkpoint_path(checkpoint)
    places = (path, path.parent.parent / "kept" / path.name)
    job_dir = get_settings().job_dir(checkpoint.job_id)
    return next((place for place in places if _visible(place, job_dir)), None)


def missing_checkpoints(steps: Collection[int], folders: Iterable[Path]) -> str:
    """Return the message for a job that cannot continue: its checkpoints are in the database, but not on disk."""
    where = ", ".join(sorted({str(folder) for folder in folders}))
    return (
        f"The checkpoints of steps {', '.join(map(str, sorted(steps)))} are missing: expected in {where}. Mount that "
        "disk, or set CALIBRL_DATA_DIR to the folder that has them, then try again. To start at step 0, submit a new "
        "job."
    )


def checkpoint_folder(checkpoint: models.Checkpoint) -> Path:
    """Return the folder of a checkpoint.

    Raises:
        Conflict: this process cannot read it.
    """
    folder = checkpoint_path(checkpoint)
    if _visible(folder, get_settings().job_dir(checkpoint.job_id)):
        return folder
    raise Conflict(
        f"The API cannot read the checkpoint of step {checkpoint.step}: it is not at {folder}; its worker wrote it to "
        f"{checkpoint.path}. Let API and workers share the data folder (CALIBRL_DATA_DIR), or copy it from the "
        "worker's disk."
    )


def results_folder(job: models.Job) -> Path | None:
    """Return the folder of the results of an evaluation or audit in its last attempt, or None if there are none yet.

    Raises:
        Conflict: this process cannot read the results.
    """
    folder = get_settings().run_dir(job.id, job.attempt)
    if job.kind == "train" or not job.attempt:
        return None
    if _visible(folder, get_settings().job_dir(job.id)):
        return folder
    raise Conflict(
        f"The API cannot read the results of job {job.id}: they are at {folder} on the disk of its worker, or were "
        "removed. Let API and workers share the data folder (CALIBRL_DATA_DIR), or copy the files from there."
    )


def listing(folder: Path) -> list[StoredFile]:
    """Return the regular files below a folder by name, without links."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            path = Path(parent, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # removed meanwhile
            if stat.S_ISREG(status.st_mode):
                files.append(_described(path.relative_to(folder).as_posix(), status))
    return sorted(files, key=lambda file: file.name)


def results(folder: Path) -> list[StoredFile]:
    """Return the result files of an evaluation or audit."""
    return [file for file in listing(folder) if file.name in RESULTS]


def pick(files: list[StoredFile], name: str) -> StoredFile:
    """Return the file of this name.

    Raises:
        NotFound: no file has this name.
    """
    for file in files:
        if file.name == name:
            return file
    raise NotFound(f"There is no file {name!r}. Available: {', '.join(file.name for file in files) or 'none'}.")


def open_file(folder: Path, file: StoredFile) -> BinaryIO:
    """Open a file of a listing for reading.

    Raises:
        NotFound: the file is gone or was replaced.
    """
    try:
        handle = os.open(folder / file.name, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise NotFound(f"The file {file.name!r} does not exist any more.") from error
    opened = os.fdopen(handle, "rb")
    if _described(file.name, os.fstat(handle)) != file:
        opened.close()
        raise NotFound(f"The file {file.name!r} is being replaced; repeat the request.")
    return opened


def _described(name: str, status: os.stat_result) -> StoredFile:
    return StoredFile(name=name, bytes=status.st_size, etag=f"{status.st_mtime_ns:x}-{status.st_size:x}")


def _visible(folder: Path, within: Path) -> bool:
    """Return True if the folder exists inside the other, with no link on the way."""
    try:
        inside = folder.is_relative_to(within) and ".." not in folder.parts
        return inside and folder.resolve(strict=True) == within.resolve(strict=True) / folder.relative_to(within)
    except OSError:
        return False
