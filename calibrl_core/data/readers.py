"""Rows of a file or a hub dataset, as dicts, with one batch in memory at a time."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from calibrl_core.data.image_kinds import image_kind
from calibrl_core.data.json_rows import MOST_VALUES, json_rows
from calibrl_core.data.schema import DataError, FileData, HubData
from calibrl_core.data.shards import data_files, kind_of

RawRow = dict[str, Any] | bytes  # a row; or a line of JSONL, so that invalid JSON is a problem of this row only
BATCH = 32  # rows read together
COUNT_SECONDS = 10.0  # of the CPU
MOST_COLUMNS = 10_000  # of a row
BATCH_BYTES = 2**23  # of rows of Parquet read together, if their mean size is that of all rows
READ_BYTES = 2**20  # of a column of Parquet; by default a whole row group is in memory, and others are read ahead
PARQUET = b"PAR1"  # first bytes
T = TypeVar("T")


def read_rows(source: FileData | HubData) -> Iterator[RawRow]:
    """Yield every row in order. The shards of a folder follow one another by name.

    Raises:
        DataError: the source cannot be read.
    """
    if isinstance(source, HubData):
        yield from hub_rows(source)
        return
    path = Path(source.path)
    files = _named(source.label, lambda: data_files(path))
    for file in files:
        label = source.label if file == path else f"{source.label}/{file.relative_to(path)}"
        yield from _file_rows(file, label)


def _file_rows(file: Path, label: str) -> Iterator[RawRow]:
    rows = _parquet_rows(file) if is_parquet(file, label) else json_rows(file)
    try:
        yield from rows
    except DataError as problem:
        raise DataError(f"{label} {problem}") from problem
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror or error}") from error


def _named(label: str, read: Callable[[], T]) -> T:
    """Return what `read` returns. Its error begins with the label."""
    try:
        return read()
    except DataError as problem:
        raise DataError(f"{label} {problem}") from problem
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror or error}") from error


def is_parquet(file: Path, label: str) -> bool:
    """Return if a file is Parquet, by its suffix or its first bytes."""

    def first_bytes() -> bytes:
        with file.open("rb") as opened:
            return opened.read(len(PARQUET))

    return kind_of(file) == "parquet" or _named(label, first_bytes) == PARQUET


def read_count(path: str) -> int | None:
    """Return the number of rows of a file or of the shards of a folder: from the footers of Parquet files, by reading
    JSON. None: reading takes more than COUNT_SECONDS.

    Raises:
        DataError: a file cannot be read.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    files = _named(path, lambda: data_files(Path(path)))
    until, total = time.thread_time() + COUNT_SECONDS, 0
    try:
        for file in files:
            if is_parquet(file, path):
                total += parquet.read_metadata(file).num_rows
                continue
            for _ in _file_rows(file, path):
                total += 1
                if time.thread_time() > until:
                    return None
        return total
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError(f"{path} cannot be read: {error}") from error


def image_folder(source: FileData | HubData) -> Path | None:
    """Return the folder that must contain the image files of the rows: the file's folder, or the cache of `datasets`.

    None: the rows cannot name image files. Of a folder of shards: that folder.
    """
    if isinstance(source, FileData):
        path = Path(source.path).resolve()
        return None if not source.image_files else path if path.is_dir() else path.parent
    from datasets import config

    return Path(config.HF_CACHE_HOME).resolve()


def parse_row(raw: RawRow) -> dict[str, Any]:
    """Return the row's columns.

    Raises:
        DataError: the line is not a JSON object, or has too many columns.
    """
    row = raw if isinstance(raw, dict) else _parsed(raw)
    if len(row) > MOST_COLUMNS:
        raise DataError(
            f"the row has {len(row)} columns; the limit is {MOST_COLUMNS}: use fewer, or write each as a row if they "
            "are the rows"
        )
    return row


def _parsed(raw: bytes) -> dict[str, Any]:
    if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise DataError(f"the line has more than {MOST_VALUES} values: make it shorter, or use Parquet")
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        kind = image_kind(raw)
        raise DataError(
            f"the file is {kind}: give a file of rows (.jsonl, .parquet), with images in the rows or named by them"
            if kind
            else f"the line is not JSON: {error}"
        ) from error
    if not isinstance(row, dict):
        raise DataError("the line is not an object with columns")
    return row


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False) as opened:
            groups = [opened.metadata.row_group(place) for place in range(opened.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups) // max(1, opened.metadata.num_rows)  # mean of a row
            rows = min(BATCH, max(1, BATCH_BYTES // max(1, size)))
            for batch in opened.iter_batches(batch_size=rows, use_threads=False):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"is not a Parquet file that can be read: {error}") from error


def hub_rows(source: HubData) -> Iterator[dict[str, Any]]:
    """Yield rows as they are stored, images not decoded.

    Raises:
        DataError: the dataset cannot be loaded.
    """
    for batch in hub_dataset(source).with_format("arrow").iter(BATCH):
        yield from batch.to_pylist()


def hub_dataset(source: HubData, *, streaming: bool = False) -> Any:
    """Return a dataset of the library `datasets`, from the network or from the cache of an earlier run.

    `datasets` refuses datasets that come with code, since release 4.

    Args:
        streaming: download rows as they are read, in place of the whole dataset.

    Raises:
        DataError: the dataset cannot be loaded. Without a network this takes about half a minute: the library
            retries.
    """
    import datasets

    try:
        return datasets.load_dataset(
            source.hub, source.config, split=source.split, revision=source.revision, streaming=streaming
        )
    except ConnectionError as error:
        raise DataError(
            f"{source.label} cannot be loaded: the Hugging Face hub is not reachable, and the cache has no copy. "
            "Download it on a machine with network access and name its .parquet file: {path: ...}"
        ) from error
    except Exception as error:  # the hub, its permissions and many file formats raise many kinds of errors
        raise DataError(f"{source.label} cannot be loaded: {type(error).__name__}: {error}") from error
