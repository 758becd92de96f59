"""Files of a data path: the file itself, or the shards of a folder."""

import re
from pathlib import Path
from typing import Literal

from calibrl_core.data.schema import DataError

Kind = Literal["json", "parquet"]
COMPRESSED = (".gz", ".zst", ".zstd")
KINDS: dict[str, Kind] = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet"}
MOST_FILES = 10_000  # shards of a folder
_ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})  # of `datasets`
_SPLIT = re.compile(r"(?:^|[-_./])(train|test|testmini|validation|valid|val|dev)(?=[-_./]|$)")
_SAME = {"valid": "validation", "val": "validation", "dev": "validation"}


def kind_of(path: Path) -> Kind | None:
    """Return what the suffix of a file says that it holds, in any case and compressed or not; None: something else."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
        return "json" if suffixes and KINDS.get(suffixes[-1]) == "json" else None
    return KINDS.get(suffixes[-1]) if suffixes else None


def bare_name(path: Path) -> str:
    """Return the name of a file or folder without the suffix of its kind."""
    name = path.name
    for suffixes in (COMPRESSED, tuple(KINDS)):
        suffix = Path(name).suffix
        name = name.removesuffix(suffix) if suffix.lower() in suffixes else name
    return name or path.stem


def data_files(path: Path) -> list[Path]:
    """Return the path, or the shards of a folder and of the folders in it, by name.

    Raises:
        DataError: the folder has no shards, more than MOST_FILES shards, shards of two kinds, or of several splits.
    """
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    for file in path.rglob("*"):
        if kind_of(file) and _is_shard(file.relative_to(path)) and file.is_file():
            files.append(file)  # not images beside the shards
        if len(files) > MOST_FILES:
            raise DataError(f"is a folder with more than {MOST_FILES:,} data files: name its shards in a list")
    if not files:
        raise DataError(f"is a folder without files that can be read; they must end with {', '.join(KINDS)}")
    if len({kind_of(file) for file in files}) > 1:
        raise DataError("is a folder with JSON and Parquet files: name those to read in a list")
    check_splits(path, files)
    return sorted(files)


def check_splits(path: Path, files: list[Path]) -> None:
    """Check that the files of a folder belong to one split.

    Raises:
        DataError: they belong to several.
    """
    if len(splits := _splits(path, files)) > 1:
        raise DataError(
            f"is a folder with several splits ({', '.join(splits)}): name the files or the folder of one split"
        )


def _is_shard(inner: Path) -> bool:
    return inner.name not in _ABOUT and not any(part.startswith((".", "_")) for part in inner.parts)


def _splits(path: Path, files: list[Path]) -> list[str]:
    names = (str(file.relative_to(path)).lower() for file in files)
    found = {match[1] for name in names if (match := _SPLIT.search(name))}
    return sorted({_SAME.get(split, split) for split in found})
