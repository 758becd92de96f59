"""Rows in an Arrow file, written once and memory-mapped by every process that uses them.

Columns: `row`, the texts and numbers of an example as JSON; `facts`, what is known about each of its images; `images`,
their encoded bytes, empty for an image that stays in a file of its own.
"""

import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import asdict, fields
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
        file = opened(self._path)
        return self._example(place, file.cell("row", place).as_py(), file.cell("facts", place).as_py())

    def __iter__(self) -> Iterator[Example]:
        """Yield all examples, batch by batch."""
        file, row = opened(self._path), 0
        for number in range(file.batches):
            batch = file.batch(number)
            for text, facts in zip(batch.column("row"), batch.column("facts"), strict=True):
                yield self._example(row, text.as_py(), facts.as_py())
                row += 1

    def _example(self, row: int, text: bytes, facts: list[dict[str, Any]]) -> Example:
        values = json.loads(text)
        values["earlier"] = tuple(Turn(**turn) for turn in values["earlier"])
        known = tuple(ImageFacts(**one) for one in facts)
        return Example(**values, images=StoredImages(self._path, row, values["id"], known) if known else ())


class RowWriter:
    """Writes examples to an Arrow file, with one batch of them in memory."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow

        self._sink = pyarrow.ipc.new_file(file, _schema())
        self._begin()

    def _begin(self) -> None:
        self._rows: list[bytes] = []
        self._facts: list[list[dict[str, Any]]] = []
        self._images: list[bytes] = []  # of all rows; empty for those in files of their own
        self._bytes = 0

    def add(self, example: Example) -> None:
        """Write an example at the end."""
        values = {name: getattr(example, name) for name in _FIELDS}
        facts = [ImageFacts.of(data) for data in example.images]
        row = json.dumps(values, default=asdict).encode()
        images = [data if one.path is None else b"" for data, one in zip(example.images, facts, strict=True)]
        self._rows.append(row)
        self._facts.append([vars(one) for one in facts])
        self._images += images
        self._bytes += len(row) + sum(map(len, images))
        if len(self._rows) == BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._flush()

    def close(self, notes: str) -> None:
        """Write the rest and a text about all rows, and return memory to the operating system."""
        import pyarrow

        self._flush({"notes": notes})
        self._sink.close()
        pyarrow.default_memory_pool().release_unused()

    def _flush(self, metadata: dict[str, str] | None = None) -> None:
        import pyarrow

        facts = pyarrow.array(self._facts, _schema().field("facts").type)
        images = pyarrow.ListArray.from_arrays(facts.offsets, _binary_array(self._images))
        batch = pyarrow.record_batch([_binary_array(self._rows), facts, images], schema=_schema())
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
    file = opened(path)
    for number in range(file.batches):
        facts = file.batch(number).column("facts").flatten()
        named = facts.filter(facts.field("path").is_valid()).to_pylist()
        if any(map(_differs, named)):
            return True
    return False


def _differs(facts: dict[str, Any]) -> bool:
    try:
        now = os.stat(facts["path"])  # noqa: PTH116 - a path as bytes
    except OSError:
        return True
    return (now.st_size, now.st_mtime_ns) != (facts["size"], facts["modified"])


@cache
def _schema() -> "pyarrow.Schema":
    import pyarrow

    content, text, number = pyarrow.large_binary(), pyarrow.string(), pyarrow.int64()
    numbers = [(name, number) for name in ("modified", "size", "width", "height")]
    image = pyarrow.struct([("path", pyarrow.binary()), *numbers, ("sha256", text), ("edges", text)])
    columns = [("row", content), ("facts", pyarrow.list_(image)), ("images", pyarrow.list_(content))]
    return pyarrow.schema(columns)
