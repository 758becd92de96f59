"""A folder of converted data: the rows and images of each source in one Arrow file, for all processes and later runs.

The name of a file is a digest of its source: the settings, and names, sizes and times of its files. A file is written
beside its place, under a lock that ends with the process, and then renamed: it is complete or not there. Who uses a
file holds a lock on it. If the folder exceeds its limit, files that no process uses are removed, the one used
longest ago first.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from calibrl_core.code_digest import code_digest
from calibrl_core.data.files import valid_examples
from calibrl_core.data.readers import hub_dataset
from calibrl_core.data.schema import DataError, FileData, HubData
from calibrl_core.data.shards import data_files
from calibrl_core.data.source_facts import SourceFacts
from calibrl_core.data.stored_images import opened
from calibrl_core.data.stored_rows import RowWriter, StoredExamples, image_files_changed
from calibrl_core.report import Report

LONGEST_PAUSE = 600.0  # seconds; the process that converts a source shows more often that it goes on
_POLL = 0.2  # seconds
_BEAT_ROWS = 100  # rows after which it shows so
_EXPANSION = 0.7  # converted bytes per byte of a source: 4 bytes of base64 are 3 of an image
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none


@dataclass(frozen=True)
class RowCache:
    """The folder, and the bytes that its files can have while none is in use."""

    folder: Path
    limit: int

    def load(
        self, source: FileData | HubData, facts: SourceFacts | None = None, *, answers: bool = True
    ) -> StoredExamples:
        """Return the examples of a source, converted by this process or another one, now or earlier. `facts` receives
        its format and columns. `answers`: rows need an answer.

        Raises:
            DataError: rows are invalid; the message names them. Or the disk has no space for the converted data, or the
                process that converts them does not go on.
            OSError: files.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path, converted = self.folder / f"{_key(source, answers=answers)}.arrow", False
        waiting = _Waiting(path)
        while (use := _used(path, check_files=not converted)) is None:
            with _written(path) as file:
                if file is None:
                    waiting.pause()
                else:
                    self._make_room(source)
                    _convert(source, file, path, answers=answers)
                    converted = True
        os.utime(path)
        examples = StoredExamples(path, use)
        if facts is not None:
            facts.take_json(examples.notes)
        return examples

    def _make_room(self, source: FileData | HubData) -> None:
        """Remove what dead processes left, and unused files until the folder has space for the source.

        Raises:
            DataError: the disk is too full.
        """
        needed = int(_EXPANSION * sum(size for _, size, *_ in _files(source)))
        kept = self._sizes()
        total = needed + sum(kept.values())
        for file, size in kept.items():
            whole = file.suffix == ".arrow"
            if whole and total <= self.limit and shutil.disk_usage(self.folder).free >= needed:
                break
            if _removed(file):
                total -= size
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise DataError(
                f"{source.label}: its rows and images need about {_gigabytes(needed)} in {self.folder}, which has "
                f"{_gigabytes(free)} left; free some space there"
            )

    def _sizes(self) -> dict[Path, int]:
        """Return the size of each file in bytes: unfinished ones first, then by the time of their last use."""
        found: dict[Path, os.stat_result] = {}
        for file in self.folder.iterdir():
            with suppress(FileNotFoundError):
                found[file] = file.stat()
        order = sorted(found, key=lambda file: (file.suffix == ".arrow", found[file].st_mtime))
        return {file: found[file].st_size for file in order}


def row_cache(report: Report) -> RowCache:
    """Return the folder of converted data of a run: that of its machine, or else its own."""
    return RowCache((report.cache_dir or report.run_dir / "cache") / "rows", report.cache_bytes)


class _Waiting:
    """The wait for another process that converts the same source."""

    def __init__(self, path: Path) -> None:
        self._path, self._failure = path, path.with_suffix(".failure")
        self._before = _modified(self._failure)

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            DataError: the other process has found invalid rows, or does not go on.
        """
        time.sleep(_POLL)
        if (failed := _modified(self._failure)) is not None and failed != self._before:
            raise DataError(self._failure.read_text())
        partial = _partial(self._path)
        beat = _modified(partial)
        if beat is not None and time.time() - beat > LONGEST_PAUSE:
            raise DataError(
                f"another process converts the data to {partial}, and has not gone on for {LONGEST_PAUSE:.0f} s; end "
                "it, or remove this file if there is none"
            )


def _convert(source: FileData | HubData, file: BinaryIO, path: Path, *, answers: bool) -> None:
    """Write the rows of a source to `file` and rename it to `path`; leave nothing of it after an error."""
    failure = path.with_suffix(".failure")
    failure.unlink(missing_ok=True)
    facts = SourceFacts()
    try:
        writer = RowWriter(file)
        for number, example in enumerate(valid_examples(source, facts, answers=answers)):
            if number % _BEAT_ROWS == 0:
                os.utime(file.fileno())
            if example is not None:
                writer.add(example)
        writer.close(facts.to_json())
        file.flush()
        os.fsync(file.fileno())
        _locked(file.fileno(), fcntl.LOCK_SH)  # others may read it as soon as it has its name
        _partial(path).replace(path)
        opened.cache_clear()  # it can have an older file of this name
    except DataError as error:
        failure.write_text(str(error))  # for processes that wait: they need not read all rows again
        raise
    finally:
        _partial(path).unlink(missing_ok=True)


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO | None]:
    """Open and lock the file that is going to be `path`; None if another process writes it or has written it."""
    partial = _partial(path)
    try:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | (0 if _has_locks(path.parent) else os.O_EXCL), 0o644)
    except FileExistsError:
        yield None
        return
    with os.fdopen(handle, "r+b") as file:
        if not _locked(file.fileno(), fcntl.LOCK_EX) or not _is(file.fileno(), partial):
            yield None
        elif (use := _used(path, check_files=True)) is not None:
            os.close(use)
            partial.unlink()
            yield None
        else:
            file.truncate(0)
            yield file


def _used(path: Path, *, check_files: bool) -> int | None:
    """Return a handle of the file with a lock that prevents its removal, or None if it is not there or out of date.

    check_files: compare the image files that the rows name.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if _locked(handle, fcntl.LOCK_SH) and _is(handle, path) and not (check_files and image_files_changed(path)):
        return handle
    os.close(handle)
    return None


def _removed(path: Path) -> bool:
    """Remove a file that no process uses, if the file system can tell; return if it was one."""
    if not _has_locks(path.parent):
        return False
    with suppress(FileNotFoundError), path.open("rb") as file:
        if _locked(file.fileno(), fcntl.LOCK_EX) and _is(file.fileno(), path):
            path.unlink()
            return True
    return False


def _locked(handle: int, kind: int) -> bool:
    """Lock a file until the handle is closed, if no other process holds a lock that excludes this one. A file system
    without locks is not locked.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _has_locks(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(handle)
    return True


def _is(handle: int, path: Path) -> bool:
    """Return if the open file is still the one at the path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _modified(path: Path) -> float | None:
    """Return the time of the last change in seconds since 1970, or None if there is no such file."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _key(source: FileData | HubData, *, answers: bool) -> str:
    """Return the digest of a source, of what its rows need, and of the code that reads it."""
    content: Any = hub_dataset(source)._fingerprint if isinstance(source, HubData) else _files(source)
    parts = [code_digest("data"), source.model_dump(mode="json", exclude={"weight"}), answers, content]
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _files(source: FileData | HubData) -> list[tuple[str, int, int, int]]:
    """Return path, size in bytes, time of change and inode of the files of a source; nothing of a hub dataset."""
    if isinstance(source, HubData):
        return []
    try:
        found = [(path, path.stat()) for path in data_files(Path(source.path).resolve())]
    except (OSError, DataError):  # reading names the problem
        return []
    return [(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in found]
