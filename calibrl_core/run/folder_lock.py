"""Lock of a run folder: one run at a time writes its events, images and checkpoints."""

import errno
import fcntl
import os
from pathlib import Path

from calibrl_core.distributed.ranks import Ranks

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none


class FolderInUseError(Exception):
    """Another run writes to the folder. Its event file is not ours: the error must not be reported there."""


class FolderLock:
    """Lock of a run folder. The first process of a run holds it, and the operating system releases it when that process
    ends, however it ends. The file stays; it has no content.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._handle: int | None = None

    def hold(self, ranks: Ranks) -> None:
        """Take the lock. All processes of the run must call this method. A file system without locks is not locked.

        Raises:
            FolderInUseError: another run holds the lock; in every process.
        """
        if ranks.from_first(ranks.first and not self._take()):
            raise FolderInUseError(
                f"--run-dir: another run is writing to {self._run_dir}; wait until it ends, or choose another folder"
            )

    def _take(self) -> bool:
        # A child process does not inherit the handle, so it cannot keep the lock after the run.
        self._handle = os.open(self._run_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
