"""First rows of a dataset of the hub, without a download of the rest."""

import time
from pathlib import Path
from typing import Any

from calibrl_core.data.readers import BATCH, hub_dataset, image_folder
from calibrl_core.data.schema import DataError, HubData

HEAD_ROWS = 500
HEAD_BYTES = 2**25  # of the rows in memory, with their images


def hub_head(source: HubData, until: float) -> tuple[Any, bool]:
    """Return the first rows as an Arrow table, and whether the dataset has no others. Images that are files beside the
    rows are read into them, as far as the trainer reads them.

    Args:
        until: `time.monotonic()` at which reading ends.

    Raises:
        DataError: the dataset has no rows, or cannot be loaded.
    """
    import pyarrow

    tables, rows, size, complete = list[Any](), 0, 0, True
    try:
        for table in hub_dataset(source, streaming=True).with_format("arrow").iter(BATCH):
            if rows >= HEAD_ROWS or size >= HEAD_BYTES or (rows and time.monotonic() > until):
                complete = False
                break
            tables.append(_with_images(table, source))
            rows, size = rows + table.num_rows, size + tables[-1].nbytes
        if not rows:
            raise DataError(f"{source.label} has no rows")
        return pyarrow.concat_tables(tables, promote_options="permissive"), complete
    except DataError:
        raise
    except Exception as error:  # the hub and many file formats raise many kinds of errors
        raise DataError(f"{source.label} cannot be read: {type(error).__name__}: {error}") from error


def _with_images(table: Any, source: HubData) -> Any:
    """Return the rows with the content of the image files that belong to the dataset."""
    import pyarrow

    rows = table.to_pylist()
    filled = [_filled(row, source) for row in rows]
    return table if filled == rows else pyarrow.Table.from_pylist(filled, schema=table.schema)


def _filled(value: Any, source: HubData) -> Any:
    import fsspec

    if isinstance(value, list):
        return [_filled(item, source) for item in value]
    if not isinstance(value, dict):
        return value
    path = value.get("path") if value.keys() == {"bytes", "path"} and not value["bytes"] else None
    if isinstance(path, str) and _belongs(path, source):
        with fsspec.open(path) as file:
            return {"bytes": file.read(), "path": path}
    return {name: _filled(item, source) for name, item in value.items()}


def _belongs(path: str, source: HubData) -> bool:
    """Return if a path is in the dataset on the hub or, as the trainer asks, in the cache of `datasets`. A row can
    name any file of the machine.
    """
    if path.rpartition("::")[2].startswith(f"hf://datasets/{source.hub}@"):  # zip://1.png::hf://... is in an archive
        return True
    cache = image_folder(source)
    return cache is not None and "://" not in path and Path(path).resolve().is_relative_to(cache)
