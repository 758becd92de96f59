"""Images of stored rows: read from the rows' Arrow file, or from the image file that a row names, each time they are
used. What is often asked about an image, such as its size, is known without reading it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from calibrl_core.data.image_decoding import image_size
from calibrl_core.data.image_files import FileBytes
from calibrl_core.data.schema import DataError

if TYPE_CHECKING:
    import pyarrow

_EDGE = 4096  # bytes
_OPEN_FILES = 8  # mapped at the same time per process; another one is mapped again when it is used
_OPEN_BATCHES = 4


@dataclass(frozen=True)
class ImageFacts:
    """Facts about the content of an encoded image."""

    path: str | None  # of the image file; None: the Arrow file holds the image
    modified: int  # of the image file: nanoseconds since 1970; 0 without a path
    size: int  # bytes
    width: int  # pixels
    height: int
    sha256: str
    edges: str  # digest of size, first and last bytes

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the facts of an image that `read_images` accepted."""
        path, modified = (str(data.path), data.modified) if isinstance(data, FileBytes) else (None, 0)
        return cls(path, modified, len(data), *image_size(data), sha256(data).hexdigest(), edge_digest(data))


class StoredImages(Sequence[bytes]):
    """The encoded images of one stored row. A copy in another process needs no bytes: it reads the same files.

    Equal to any sequence of the same images. As a key of a dict it is found only by the stored images of a row.
    """

    def __init__(self, file: Path, row: int, owner: str, facts: tuple[ImageFacts, ...]) -> None:
        """file: the Arrow file; row: place in it; owner: name of the row in messages."""
        self._file, self._row, self._owner, self.facts = file, row, owner, facts

    def __len__(self) -> int:
        return len(self.facts)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[bytes, ...]: ...
    def __getitem__(self, place: int | slice) -> bytes | tuple[bytes, ...]:
        """Return an image.

        Raises:
            DataError: its file is not what it was when the rows were read.
        """
        if isinstance(place, slice):
            return tuple(self[one] for one in range(len(self))[place])
        facts = self.facts[place]  # IndexError ends an iteration
        if facts.path is None:
            data: bytes = opened(self._file).cell("images", self._row)[place].as_py()
            return data
        return self._of_file(facts, Path(facts.path))

    def _of_file(self, facts: ImageFacts, path: Path) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{self._owner}: {path} cannot be read: {error.strerror}; restore it") from error
        if sha256(data).hexdigest() != facts.sha256:
            raise DataError(
                f"{self._owner}: {path} has changed since the run read its rows; restore it, or start a new run"
            )
        return data

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredImages):
            return _digests(self) == _digests(other)
        return isinstance(other, tuple) and len(other) == len(self) and tuple(self) == other

    def __hash__(self) -> int:
        return hash(_digests(self))

    def __repr__(self) -> str:
        return f"<{len(self)} images of {self._owner}>"


def image_sizes(images: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return width and height in pixels of each image."""
    if isinstance(images, StoredImages):
        return [(one.width, one.height) for one in images.facts]
    return [image_size(data) for data in images]


def content_digests(images: Sequence[bytes]) -> list[str]:
    """Return the sha256 of each image."""
    return list(_digests(images)) if isinstance(images, StoredImages) else [sha256(data).hexdigest() for data in images]


def edge_digests(images: Sequence[bytes]) -> list[str]:
    """Return a digest of the size, the first and the last bytes of each image."""
    return [one.edges for one in images.facts] if isinstance(images, StoredImages) else list(map(edge_digest, images))


def edge_digest(data: bytes) -> str:
    """Return a digest of the size, the first and the last bytes of an image."""
    return sha256(json.dumps([len(data), data[:_EDGE].hex(), data[-_EDGE:].hex()]).encode()).hexdigest()


def _digests(images: StoredImages) -> tuple[str, ...]:
    return tuple(one.sha256 for one in images.facts)


class ArrowFile:
    """Rows of a memory-mapped Arrow file. Its record batches are read when a row of theirs is used."""

    def __init__(self, path: Path) -> None:
        import numpy as np
        import pyarrow

        self._reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
        self.batches: int = self._reader.num_record_batches
        self.ends = np.cumsum(
            [self._reader.get_batch(number).num_rows for number in range(self.batches)]
        )  # row numbers
        about = self._reader.get_batch_with_custom_metadata(self.batches - 1).custom_metadata
        self.notes: str = about[b"notes"].decode()
        self.names_files: bool = json.loads(about[b"names_files"])  # some images are in files of their own
        self.batch = lru_cache(_OPEN_BATCHES)(self._reader.get_batch)

    def cell(self, column: str, row: int) -> Any:
        """Return the value of a column in a row (from 0), as a scalar of Arrow that refers to the mapped file."""
        number = int(self.ends.searchsorted(row, side="right"))
        batch: pyarrow.RecordBatch = self.batch(number)
        return batch.column(column)[row - int(self.ends[number]) + batch.num_rows]


@lru_cache(_OPEN_FILES)
def opened(path: Path) -> ArrowFile:
    """Return a file, mapped once per process."""
    return ArrowFile(path)
