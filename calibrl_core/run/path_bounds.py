"""Files that a run can read: a model folder, with its links, must stay in one allowed root.

A root is a folder that runs can read from. A closed folder, inside a root or not, holds files that the service keeps
for jobs. Every path belongs to the innermost of these folders that contains it. A run that is started by hand has no
roots and reads any file.
"""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from calibrl_core.config import PathModel
from calibrl_core.data.schema import DataError, FileData
from calibrl_core.data.shards import data_files

MOST_FILES = 10_000  # of a model's folder
MOST_CONFIG_BYTES = 2**24  # of a JSON file that is searched for paths
LONGEST_PATH = 1024
_NO_PATHS = ("tokenizer.json", "trainer.json")  # the second: state and settings of the run that wrote a checkpoint
_NOTES = ("_name_or_path", "name_or_path")  # origin of a model; no reader uses it
_GGUF_FOLDERS = ("additional_chat_templates",)  # that transformers reads beside a GGUF file


@dataclass(frozen=True)
class PathBounds:
    """The roots that a run can read from, and the closed folders, as they are named. All paths are absolute."""

    roots: tuple[Path, ...] = ()
    closed: tuple[Path, ...] = ()

    def problem(self, path: Path) -> str | None:
        """Return why a run cannot read a path, with links resolved, or None if it can."""
        try:
            zone = self._zone(path.resolve())
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
            return f"{path} is not a path that can be read"
        if zone is None:
            where = ", ".join(map(str, self.roots)) or "none"
            return f"jobs cannot read {path}: it is outside the allowed folders ({where}; set by CALIBRL_ALLOWED_ROOTS)"
        if zone in self._closed():
            return f"jobs cannot read {path}: the service keeps its files there; use model.from_job, or data.dataset"
        return None

    def model_problem(self, path: Path) -> str | None:
        """Return why a run cannot load a model folder or a GGUF file (a file of it is outside), or None if it can."""
        if problem := self.problem(path):
            return problem
        try:
            return self._stray(path, self._zone(path.resolve()))
        except OSError as error:  # also a folder inside that this process is not permitted to list
            return f"{error.filename or path} can't be read: {error.strerror}"

    def data_problem(self, path: Path) -> str | None:
        """Return why a run cannot read a data file or a folder with its shards, or None if it can."""
        if problem := self.problem(path):
            return problem
        try:
            files = data_files(path)
        except (DataError, OSError):
            return None  # the reader says why
        return next((problem for file in files if (problem := self.problem(file))), None)

    def own_problem(self, path: Path) -> str | None:
        """Return why a checkpoint or a data file that the service chose, in a closed folder, cannot be read."""
        folder = next(folder for folder in self.closed if path.is_relative_to(folder))
        real = folder.resolve() / path.relative_to(folder)
        if ".." in path.parts or path.resolve() != real:
            return f"{path} is reached through a link: remove the link"
        return PathBounds((real,), self._closed())._stray(path, real) if path.is_dir() else None

    def check(self, config: BaseModel) -> list[str]:
        """Return the problems of all paths that a run's config names."""
        problems = (self._check(*named) for named in _named(config))
        return [problem for problem in problems if problem]

    def _check(self, path: Path, is_model: bool) -> str | None:
        if any(path.is_relative_to(folder) for folder in self.closed):  # as named: users' paths there are refused
            return self.own_problem(path)
        return self.model_problem(path) if is_model else self.data_problem(path)

    def _closed(self) -> tuple[Path, ...]:
        return tuple(folder.resolve() for folder in self.closed)

    def _zone(self, real: Path) -> Path | None:
        """Return the innermost root or closed folder that contains a resolved path. A closed folder wins over an equal
        root.
        """
        closed = self._closed()
        zones = [zone for zone in (*closed, *(root.resolve() for root in self.roots)) if real.is_relative_to(zone)]
        return max(zones, key=lambda zone: len(zone.parts), default=None)

    def _stray(self, path: Path, zone: Path | None) -> str | None:
        """Return a sentence about the first file of a model that is outside its zone, or None."""
        for count, (file, real) in enumerate(_files(path)):
            if count >= MOST_FILES:
                return f"{path} is not the folder of a saved model: it holds more than {MOST_FILES:,} files"
            if real is None:
                return f"{file} can't be read: it is neither a file nor a folder, or a link to nothing"
            if self._zone(real) != zone:
                return f"{file} leads out of {zone}, to {real}: put the file itself there"
            if file.parent in (path, path.parent) and (named := self._named_outside(file, real, zone)):
                return f"{file} names {named}, which is outside of {zone}: put that file into the model's folder"
        return None

    def _named_outside(self, file: Path, real: Path, zone: Path | None) -> str | None:
        """Return a path in a model's config file (an index of weights, an adapter's base model) that leads outside, or
        None.
        """
        if file.suffix != ".json" or file.name in _NO_PATHS or real.stat().st_size > MOST_CONFIG_BYTES:
            return None
        try:
            texts = set(_texts(json.loads(real.read_bytes())))
        except (OSError, ValueError, RecursionError):
            return None  # not readable, so the model's loader fails on it too
        for text in texts:
            outside = text.startswith("/") and os.path.exists(text) and self._zone(Path(text).resolve()) != zone  # noqa: PTH110
            if outside or ".." in text.split("/"):
                return text
        return None


def _named(value: Any) -> Iterator[tuple[Path, bool]]:
    """Yield the paths of a config, each with True if it is a model's."""
    if isinstance(value, PathModel | FileData):
        yield Path(value.path), isinstance(value, PathModel)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _named(getattr(value, name))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from _named(item)


def _files(path: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield the files and folders that a model is loaded from, each with its resolved path; None for all
    other kinds.
    """
    folders = [path] if path.suffix != ".gguf" else [path.parent / name for name in _GGUF_FOLDERS]
    if path.suffix == ".gguf":
        yield from ((entry, _real(entry)) for entry in path.parent.iterdir() if entry == path or _is_text(entry))
    seen = set[Path]()
    while folders:
        folder = folders.pop()
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            real = _real(entry)
            yield entry, real
            if real and real.is_dir() and real not in seen:
                seen.add(real)
                folders.append(entry)


def _is_text(entry: Path) -> bool:
    """Return if transformers can read a file next to a GGUF file."""
    return entry.suffix in (".json", ".jinja", ".txt", ".model")


def _real(path: Path) -> Path | None:
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        return None
    return real if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else None


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings in JSON that can be paths."""
    if isinstance(value, str):
        if "/" in value and len(value) <= LONGEST_PATH and "\n" not in value and "\0" not in value:
            yield value
    elif isinstance(value, dict | list):
        items = [item for key, item in value.items() if key not in _NOTES] if isinstance(value, dict) else value
        for item in items:
            yield from _texts(item)
