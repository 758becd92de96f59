"""Rows of a file or a hub dataset, as dicts, with one batch in memory at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import DataError, FileData, HubData

RawRow = dict[str, Any] | bytes  # a row; or a line of JSONL, so that invalid JSON is a problem of this row only
BATCH = 32  # rows read together
LONGEST_LINE = 2**25  # bytes per line of JSONL; a whole line is in memory
MOST_VALUES = 300_000  # separators of a line; parsed values need a hundred times the memory of their text


def read_rows(source: FileData | HubData) -> Iterator[RawRow]:
    """Yield every row in order.

    Raises:
        DataError: the source cannot be read.
    """
    try:
        if isinstance(source, HubData):
            yield from hub_rows(source)
        elif source.path.endswith(".parquet"):
            yield from _parquet_rows(source)
        else:
            yield from _jsonl_rows(source)
    except OSError as error:
        raise DataError(f"{source.label} cannot be read: {error.strerror or error}") from error


def read_count(path: str) -> int:
    """Return the number of rows of a file: from the footer of a Parquet file, or the number of lines of JSONL.

    Raises:
        DataError: the file cannot be read.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        if path.endswith(".parquet"):
            rows: int = parquet.read_metadata(path).num_rows
            return rows
        with Path(path).open("rb") as file:
            return sum(1 for _ in file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def image_folder(source: FileData | HubData) -> Path | None:
    """Return the folder that must contain the image files of the rows: the file's folder, or the cache of `datasets`.

    None: the rows may not name image files.
    """
    if isinstance(source, FileData):
        return Path(source.path).resolve().parent if source.image_files else None
    from datasets import config

    return Path(config.HF_CACHE_HOME).resolve()


def parse_row(raw: RawRow) -> dict[str, Any]:
    """Return the row's columns.

    Raises:
        DataError: the line is not a JSON object.
    """
    if isinstance(raw, dict):
        return raw
    if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise DataError(f"the line has more than {MOST_VALUES} values: make it shorter, or use Parquet")
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the line is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError("the line is not an object with columns")
    return row


def _jsonl_rows(source: FileData) -> Iterator[bytes]:
    with Path(source.path).open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise DataError(f"{source.label} has a line of more than {LONGEST_LINE // 2**20} MiB; use Parquet")
            yield line


def _parquet_rows(source: FileData) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(source.path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{source.label} is not a Parquet file that can be read: {error}") from error


def hub_rows(source: HubData) -> Iterator[dict[str, Any]]:
    """Yield rows as they are stored, images not decoded, from the network or from the cache of an earlier run.

    `datasets` refuses datasets that come with code, since release 4.

    Raises:
        DataError: the dataset cannot be loaded. Without a network this takes about half a minute: the library
            retries.
    """
    import datasets

    try:
        dataset = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except ConnectionError as error:
        raise DataError(
            f"{source.label} cannot be loaded: the Hugging Face hub is not reachable, and the cache has no copy. "
            "Download it on a machine with network access and name its .parquet file: {path: ...}"
        ) from error
    except Exception as error:  # the hub, its permissions and many file formats raise many kinds of errors
        raise DataError(f"{source.label} cannot be loaded: {type(error).__name__}: {error}") from error
    for batch in dataset.with_format("arrow").iter(BATCH):
        yield from batch.to_pylist()
