"""Surveys of data files, cached while a file does not change.

Results are cached in this process for the last CACHED_FILES files. The key is path, columns, rows, size and
modification time. A change of an image file next to it is not noticed; the trainer reads it again.
"""

from functools import lru_cache
from pathlib import Path

from calibrl_core.data import files
from calibrl_core.data.files import Survey
from calibrl_core.data.schema import DataError, FileData
from calibrl_core.data.shards import data_files

CACHED_FILES = 256


def survey(source: FileData) -> Survey:
    """Return the survey of the first rows of a file."""
    return _survey(source, *_fingerprint(source))


def count_rows(source: FileData) -> int | None:
    """Return the number of rows of a file that are used. None: unknown until the trainer reads it.

    Raises:
        DataError: the file cannot be read.
    """
    return _count_rows(source, *_fingerprint(source))


def _fingerprint(source: FileData) -> tuple[int, int]:
    """Return the size of the file, or of all shards of the folder, in bytes, and its newest change in nanoseconds."""
    try:
        found = [file.stat() for file in data_files(Path(source.path))]
    except (DataError, OSError, ValueError):  # the survey reports the error
        return 0, 0
    return sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)


@lru_cache(CACHED_FILES)
def _survey(source: FileData, size: int, changed: int) -> Survey:
    return files.survey(source)


@lru_cache(CACHED_FILES)
def _count_rows(source: FileData, size: int, changed: int) -> int | None:
    return files.count_rows(source)
