"""Tables as JSON, CSV or Parquet, as a client chooses by `?format=` or by its Accept header.

In CSV, a text that a spreadsheet would read as a formula (it begins with = + - @, a tab or a line break) gets an
apostrophe in front: a trainer chooses the names of metrics, and they must stay data. Parquet has the texts unchanged.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import isfinite, isnan
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Header, Query
from fastapi.responses import StreamingResponse

Format = Literal["json", "csv", "parquet"]
READERS = 3  # pieces made at once: each takes a connection in addition to `api.deps.SESSIONS`
READING = CapacityLimiter(READERS)
Rows = Sequence[Sequence[Any]]
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
CONTENT = {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()}
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are the first four in full width


def _chosen(
    format: Annotated[
        Format | None, Query(description="Format of the response. None: as the Accept header says, or JSON.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Format:
    if format is not None:
        return format
    types = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    known: dict[str, Format] = {"application/json": "json", **{media: name for name, media in MEDIA_TYPES.items()}}
    return next((known[media] for media in types if media in known), "json")


ChosenFormat = Annotated[Format, Depends(_chosen)]


def streamed(format: Format, name: str, columns: Mapping[str, type], pages: Iterable[Rows]) -> StreamingResponse:
    """Return a file `name`.csv or `name`.parquet, sent while the pages of rows are read.

    `columns` gives each column's type: int, float, str or datetime; None means no value in any type.
    """
    write = _csv if format == "csv" else _parquet
    return attachment(f"{name}.{format}", MEDIA_TYPES[format], write(columns, pages))


def attachment(name: str, media_type: str, content: Iterator[bytes]) -> StreamingResponse:
    """Return a response that streams a file to save. `name` can only have letters, digits, dots and dashes."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_in_turn(content), media_type=media_type, headers=headers)


async def _in_turn(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces, each made in one of a few threads. An answer that waits for its turn occupies no thread."""
    while (piece := await to_thread.run_sync(next, content, None, limiter=READING)) is not None:
        yield piece


def escape_formula(text: str) -> str:
    """Return a text as a CSV cell that no spreadsheet reads as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return (
                repr(value) if isfinite(value) else "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
            )
        case datetime():
            return value.isoformat()
        case int():
            return str(value)
    return escape_formula(str(value))


def _csv(columns: Mapping[str, type], pages: Iterable[Rows]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(escape_formula, columns))
    for rows in pages:
        writer.writerows(map(_cell, row) for row in rows)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


class _Outlet(io.RawIOBase):
    """A writable file whose content is read and removed in pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._size += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """Return the bytes written since the last call."""
        data, self._pieces = b"".join(self._pieces), []
        return data


def _parquet(columns: Mapping[str, type], pages: Iterable[Rows]) -> Iterator[bytes]:
    import pyarrow  # not at the top: 40 MB that only Parquet needs
    from pyarrow import parquet

    kinds = {
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
        datetime: pyarrow.timestamp("us", "UTC"),
    }
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    outlet = _Outlet()
    with parquet.ParquetWriter(outlet, schema) as writer:
        for rows in pages:
            values = zip(*rows, strict=True) if rows else ((),) * len(columns)
            arrays = [pyarrow.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
            yield outlet.taken()
    yield outlet.taken()
