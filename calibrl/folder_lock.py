"""Lock of a data folder. The stack that runs on the folder holds it; the kernel releases it when the process ends."""

from pathlib import Path

from filelock import FileLock, Timeout


def folder_lock(folder: Path) -> FileLock:
    """Return the lock of a folder, not yet acquired."""
    return FileLock(folder / "lock")


def is_held(folder: Path) -> bool:
    """Return whether any process holds the folder.

    Raises:
        OSError: the lock file cannot be opened.
    """
    lock = folder_lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
