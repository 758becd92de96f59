"""Rows in an Arrow file, written once and memory-mapped by every process that uses them.

Columns: `row`, the texts and numbers of an example as JSON, with facts about its images; `images`, their encoded bytes,
empty for an image that stays in a file of its own.
"""

import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from calibrl_core.data.schema import Example, Turn
from calibrl_core.data.stored_images import ImageFacts, StoredImages, opened
from calibrl_core.data.views import ExampleView

if TYPE_CHECKING:
    import pyarrow

BATCH_BYTES = 2**22  # of rows and images that are written together: what the conversion holds in memory
BATCH_ROWS = 1024
_FIELDS = tuple(field.name for field in fields(Example) if field.name != "images")


class StoredExamples(ExampleView):
    """The rows of a file that `RowWriter` wrote."""

    def __init__(self, path: Path, use: int) -> None:
        """use: a handle of the file with a lock that prevents its removal; closed when nothing refers to the rows."""
        self._path = path
        weakref.finalize(self, os.close, use)
        self._length = int(opened(path).ends[-1])

    def __len__(self) -> int:
        return self._length

    @property
    def notes(self) -> str:
        """Return the text that was given to `RowWriter.close`."""
        return opened(self._path).notes

    def _one(self, place: int) -> Example:
        return self._example(place, opened(self._path).cell("row", place).as_py())

    def __iter__(self) -> Iterator[Example]:
        """Yield all examples, batch by batch."""
        for row, text in enumerate(_texts(self._path)):
            yield self._example(row, text)

    def _example(self, row: int, text: str) -> Example:
        values = json.loads(text)
        values["earlier"] = tuple(Turn(**turn) for turn in values["earlier"])
        if facts := values["images"]:
            known = tuple(ImageFacts(**one) for one in facts)
            values["images"] = StoredImages(self._path, row, values["id"], known)
        else:
            values["images"] = ()
        return Example(**values)


class RowWriter:
    """Writes examples to an Arrow file, with one batch of them in memory."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow

        self._sink = pyarrow.ipc.new_file(file, _schema())
        self._names_files = False
        self._begin()

    def _begin(self) -> None:
        self._rows: list[bytes] = []
        self._images: list[bytes] = []  # of all rows; empty for those in files of their own
        self._ends = [0]  # number of images up to each row
        self._bytes = 0

    def add(self, example: Example) -> None:
        """Write an example at the end."""
        facts = [ImageFacts.of(data) for data in example.images]
        values = {name: getattr(example, name) for name in _FIELDS} | {"images": facts}
        row = json.dumps(values, default=vars).encode()
        images = [data if one.path is None else b"" for data, one in zip(example.images, facts, strict=True)]
        self._names_files |= any(one.path is not None for one in facts)
        self._rows.append(row)
        self._images += images
        self._ends.append(len(self._images))
        self._bytes += len(row) + sum(map(len, images))
        if len(self._rows) == BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._flush()

    def close(self, notes: str) -> None:
        """Write the rest and a text about all rows, and return memory to the operating system."""
        import pyarrow

        self._flush({"notes": notes, "names_files": json.dumps(self._names_files)})
        self._sink.close()
        pyarrow.default_memory_pool().release_unused()

    def _flush(self, metadata: dict[str, str] | None = None) -> None:
        import pyarrow

        images = pyarrow.ListArray.from_arrays(self._ends, _binary_array(self._images))
        rows = _binary_array(self._rows).view(pyarrow.large_string())
        batch = pyarrow.record_batch([rows, images], schema=_schema())
        self._sink.write_batch(batch, custom_metadata=metadata)
        self._begin()


def _binary_array(values: list[bytes]) -> "pyarrow.LargeBinaryArray":
    """Return values as an array. By the constructor of Arrow they would be in memory three times."""
    import numpy as np
    import pyarrow

    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(values))]
    return pyarrow.LargeBinaryArray.from_buffers(pyarrow.large_binary(), len(values), buffers)


def image_files_changed(path: Path) -> bool:
    """Return if an image file that the rows name is not as it was when they were written."""
    if not opened(path).names_files:
        return False
    facts = (one for text in _texts(path) for one in json.loads(text)["images"] if one["path"] is not None)
    return any(map(_differs, facts))


def _differs(facts: dict[str, Any]) -> bool:
    try:
        now = os.stat(facts["path"])  # noqa: PTH116 - quicker
    except OSError:
        return True
    return (now.st_size, now.st_mtime_ns) != (facts["size"], facts["modified"])


def _texts(path: Path) -> Iterator[str]:
    """Yield the JSON of each row."""
    file = opened(path)
    for number in range(file.batches):
        for text in file.batch(number).column("row"):
            yield text.as_py()


@cache
def _schema() -> "pyarrow.Schema":
    import pyarrow

    return pyarrow.schema([("row", pyarrow.large_string()), ("images", pyarrow.list_(pyarrow.large_binary()))])
