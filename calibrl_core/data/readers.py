"""The rows of a file or a hub data set, as dicts, a batch of them in memory at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import DataError, FileData, HubData

Raw = dict[str, Any] | bytes  # a row; or a line of JSONL, so that one which is not JSON is that row's problem only
BATCH = 32  # rows read together
LONGEST_LINE = 2**25  # bytes of a line of JSONL, which is held in memory whole


def read_rows(source: FileData | HubData) -> Iterator[Raw]:
    """Every row in order. Raises DataError where the whole source can't be read."""
    try:
        if isinstance(source, HubData):
            yield from hub_rows(source)
        elif source.path.endswith(".parquet"):
            yield from _parquet_rows(source)
        else:
            yield from _jsonl_rows(source)
    except OSError as error:
        raise DataError(f"{source.label} can't be read: {error.strerror or error}") from error


def read_count(path: str) -> int:
    """How many rows a file has: from a Parquet file's end; of JSONL its lines are counted. Raises DataError."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        if path.endswith(".parquet"):
            rows: int = parquet.read_metadata(path).num_rows
            return rows
        with Path(path).open("rb") as file:
            return sum(1 for _ in file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def image_folder(source: FileData | HubData) -> Path | None:
    """Where image paths in the rows must lie: in the file's folder, or among what `datasets` has downloaded.

    None: there must be none.
    """
    if isinstance(source, FileData):
        return Path(source.path).resolve().parent if source.image_files else None
    from datasets import config

    return Path(config.HF_CACHE_HOME).resolve()


def parsed(raw: Raw) -> dict[str, Any]:
    """The row's columns. Raises DataError."""
    if isinstance(raw, dict):
        return raw
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
    """Rows as they are stored, images not decoded. From the network, or from what an earlier run has downloaded.

    Data sets that come with code are refused by `datasets` itself, from release 4 on. Raises DataError; without a
    network after about half a minute, the time of the library's own retries.
    """
    import datasets

    try:
        found = datasets.load_dataset(source.hub, split=source.split, revision=source.revision)
    except ConnectionError as error:
        raise DataError(
            f"{source.label} can't be loaded: the Hugging Face hub can't be reached from here, and no copy is in the "
            "cache. Download it where there is a network and name its .parquet file: {path: ...}"
        ) from error
    except Exception as error:  # a hub, its rights and a dozen file formats fail in ways of their own
        raise DataError(f"{source.label} can't be loaded: {type(error).__name__}: {error}") from error
    for batch in found.with_format("arrow").iter(BATCH):
        yield from batch.to_pylist()
