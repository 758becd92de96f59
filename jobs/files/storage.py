"""Storage of uploads: a folder, or any fsspec URL such as s3://bucket/folder.

The service creates the keys, never its users. A file exists whole or not at all.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from jobs.errors import StorageAway, StorageUnavailable

CHUNK_BYTES = 4 * 2**20
_OF_S3 = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 3}}}


class Storage:
    """Files by key. All methods raise StorageUnavailable if the storage cannot be reached or is full."""

    def __init__(self, url: str) -> None:
        with self._reached():
            options = _OF_S3 if url.startswith("s3://") else {}
            self._fs, self._root = fsspec.url_to_fs(url, **options)
        self._is_folder = isinstance(self._fs, LocalFileSystem)

    def put(self, key: str, source: Path) -> None:
        """Store a copy of a file, replacing an existing one."""
        target, partial = self._at(key), self._at(f"{key}.{uuid4().hex}.partial")
        with self._reached(absent=False):
            if self._is_folder:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._fs.put_file(str(source), partial)
                if self._is_folder:
                    _sync(Path(partial))
                self._fs.mv(partial, target)
            except BaseException:
                with suppress(Exception):  # report the first error only
                    self._fs.rm_file(partial)
                raise

    def path(self, key: str) -> Path | None:
        """Return the path of a file, or None if the storage is not a folder."""
        return Path(self._at(key)) if self._is_folder else None

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading and seeking.

        Raises:
            FileNotFoundError: the key has no file.
        """
        with self._reached():
            return cast(BinaryIO, self._fs.open(self._at(key), "rb"))

    def delete(self, key: str) -> None:
        """Delete a file, if it exists."""
        with self._reached(), suppress(FileNotFoundError):
            self._fs.rm_file(self._at(key))

    def fetch(self, key: str, target: Path, expected: str) -> Generator[None]:
        """Copy a file to this machine, one chunk between two yields: complete and with the expected SHA-256, or not at
        all.

        Raises:
            FileNotFoundError: the key has no file.
            StorageUnavailable: the content has another SHA-256.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid4().hex}.partial")
        digest = sha256()
        try:
            with self._reached(), self.open(key) as file, partial.open("wb") as copy:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    copy.write(chunk)
                    yield
            if digest.hexdigest() != expected:
                raise StorageUnavailable(f"{key} is damaged in storage: its SHA-256 is not {expected}.")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    @contextmanager
    def _reached(self, *, absent: bool = True) -> Iterator[None]:
        """Translate errors of the storage. `absent`: a missing file is a valid result. On writing it is not: the
        bucket is missing."""
        try:
            yield
        except Exception as error:  # each kind of storage raises its own errors
            if isinstance(error, StorageUnavailable) or (absent and isinstance(error, FileNotFoundError)):
                raise
            raise StorageAway(f"The storage of uploads cannot be used: {type(error).__name__}: {error}") from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
