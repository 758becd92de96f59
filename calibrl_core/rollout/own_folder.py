"""Temporary folders of a run that do not stay behind if it is killed: the next run on the machine removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path


class OwnFolder:
    """A temporary folder of mode 700. This process holds a lock on it, which the kernel releases when it ends. On a
    file system without locks the folder of a killed run stays.
    """

    def __init__(self, prefix: str, parent: Path) -> None:
        """Remove what killed runs left, then make the folder. `prefix`: of its name, the same in all runs."""
        sweep(prefix, parent)
        handle = None
        while handle is None:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            handle = _opened(self.path)
        self.close = weakref.finalize(self, _remove, self.path, handle)


def sweep(prefix: str, parent: Path) -> None:
    """Remove the folders of this user whose process is gone."""
    for path in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # it has another owner, or a process holds its lock
            if path.lstat().st_uid == os.getuid():
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(handle)
                    raise
                _remove(path, handle)


def _opened(path: Path) -> int | None:
    """Return a handle that holds the lock of a new folder; None if a sweep has taken it for that of a killed run."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)  # a sweep holds it for the time of a removal
    if path.exists():
        return handle
    os.close(handle)
    return None


def _remove(path: Path, handle: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(handle)
