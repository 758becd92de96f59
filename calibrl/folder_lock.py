"""The lock on a data folder: the process that holds it runs what is in there, and lets go of it however it ends."""

from pathlib import Path

from filelock import FileLock, Timeout


def folder_lock(folder: Path) -> FileLock:
    """The folder's lock, not yet acquired."""
    return FileLock(folder / "lock")


def is_held(folder: Path) -> bool:
    """Whether a process, this one or another, holds the folder. Raises OSError where its lock can't be opened."""
    lock = folder_lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
