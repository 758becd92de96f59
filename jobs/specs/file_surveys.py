"""Data files looked into, once for as long as they stay as they are.

What was found is remembered in this process, for the last KEPT files. A file is the same if its path, columns, rows
asked for, size and time of change are. An image file beside it may change unseen; the trainer reads it again.
"""

from functools import lru_cache
from pathlib import Path

from calibrl_core.data import files
from calibrl_core.data.files import Survey
from calibrl_core.data.schema import FileData

KEPT = 256


def survey(source: FileData) -> Survey:
    """What a file's first rows tell."""
    return _survey(source, *_fingerprint(source))


def count_rows(source: FileData) -> int:
    """How many rows of a file are used. Raises DataError where it can't be read."""
    return _count_rows(source, *_fingerprint(source))


def _fingerprint(source: FileData) -> tuple[int, int]:
    try:
        status = Path(source.path).stat()
    except (OSError, ValueError):  # the look at it says what is wrong
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(KEPT)
def _survey(source: FileData, size: int, changed: int) -> Survey:
    return files.survey(source)


@lru_cache(KEPT)
def _count_rows(source: FileData, size: int, changed: int) -> int:
    return files.count_rows(source)
