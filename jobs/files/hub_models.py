"""Models of the hub on this machine: downloaded ones for trainers, and outlines for plans.

A model is kept by its commit, in `cache/models` of the data folder, as plain files without links. An outline in
`cache/hub` has its config and the headers of its weights only: they give the shapes of all tensors.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from errno import ENOSPC
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from jobs.files.allowed_sources import bounds
from jobs.files.hub import (
    CONFIG,
    INDEX,
    MAX_CONFIG_BYTES,
    HubCommit,
    HubConnection,
    HubFile,
    HubRefusal,
    HubUnavailable,
)
from jobs.settings import get_settings

TRIES = 6  # requests in a row that bring no byte, after which a download fails
PAUSE_SECONDS = 1.0  # before the second of these requests; doubled for each one after it
POLL_SECONDS = 0.5
STALLED_SECONDS = 900.0  # time in which another process must bring bytes, if it downloads the same model
MAX_HEADER_BYTES = 50_000_000  # of a safetensors file
FIRST_BYTES = 2**18  # most headers are shorter
FILES = "files.json"
UNUSED_SECONDS = 7 * 86_400.0  # age since the last start of a job at which a model can be removed
PARTIAL = ".partial"  # suffix of the folder of an incomplete download


@dataclass(frozen=True)
class HubSnapshot:
    """A commit of a model that a job needs on its machine. `project`: the one whose token is used."""

    hub: str
    commit: str
    project: str

    @property
    def path(self) -> Path:
        """Folder of the complete model."""
        return get_settings().data_dir / "cache" / "models" / self.hub / self.commit


def outline_path(model: str, commit: str) -> Path:
    """Return the folder of the outline of a model on this machine."""
    return get_settings().data_dir / "cache" / "hub" / model / commit


def resolve(model: str, revision: str | None, project: str) -> str:
    """Return the commit of a revision, after a check that the project has access to the model. Keeps its config.

    Raises:
        HubRefusal: the model cannot be used.
        HubUnavailable: the hub cannot be reached.
    """
    with HubConnection(project) as hub:
        commit = hub.commit(model, revision)
        config = hub.read(model, commit.commit, CONFIG, MAX_CONFIG_BYTES)  # even if it is here: checks the access
    folder = outline_path(model, commit.commit)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / FILES, json.dumps({file.name: file.bytes for file in commit.files}).encode())
    _write(folder / CONFIG, config)
    if problem := bounds().own_problem(folder):
        raise HubRefusal(f"{model}: {problem}")
    return commit.commit


def read_headers(model: str, commit: str, project: str) -> None:
    """Bring the headers of the weights of a resolved model into its outline.

    Raises:
        HubRefusal: the model cannot be used.
        HubUnavailable: the hub cannot be reached.
    """
    folder = outline_path(model, commit)
    weights = [name for name in sizes(model, commit) if name.endswith(".safetensors")]
    missing = [name for name in weights if not (folder / name).is_file()]
    if not missing:
        return
    with HubConnection(project) as hub:
        if len(weights) > 1:
            _write(folder / INDEX, hub.read(model, commit, INDEX, MAX_CONFIG_BYTES))
        for name in missing:
            _write(folder / name, _header(hub, model, commit, name))


def sizes(model: str, commit: str) -> dict[str, int]:
    """Return the bytes of each file that a machine downloads; empty if no outline is here."""
    try:
        files: dict[str, int] = json.loads((outline_path(model, commit) / FILES).read_bytes())
    except FileNotFoundError:
        return {}
    return files


def _header(hub: HubConnection, model: str, commit: str, name: str) -> bytes:
    start = hub.read(model, commit, name, FIRST_BYTES, first=FIRST_BYTES)
    length = 8 + int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise HubRefusal(f"{model}: {name} is not a safetensors file")
    return start[:length] if length <= len(start) else hub.read(model, commit, name, length, first=length)


def fetch_to_machine(model: HubSnapshot, note: Callable[[str], object]) -> Iterator[None]:
    """Download a model to this machine unless it is here, with many yields. An interrupted download continues.

    note: receives one sentence when a download begins.

    Raises:
        HubRefusal: the model cannot be used.
        HubUnavailable: the hub cannot be reached, or another process that downloads the model receives nothing.
        OSError: the disk is full.
    """
    folder = model.path
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, lock = folder.with_name(f"{model.commit}{PARTIAL}"), _lock(folder)
    yield from _wait_for(lock, partial, model)
    try:
        if not folder.is_dir():
            with HubConnection(model.project) as hub:
                yield from _download(hub, hub.commit(model.hub, model.commit), partial, note)
            partial.rename(folder)
        os.utime(folder)  # marks the model as in use
    finally:
        lock.release()


def unused(folders: Path, named: Collection[str]) -> list[Path]:
    """Return the folders of models, complete or not, that no job has used for a week. `named`: commits that unfinished
    jobs name.

    folders: `cache/models`.
    """
    found = (path for path in folders.glob("*/*/*") if path.is_dir() and not path.is_symlink())
    return sorted(path for path in found if path.name.removesuffix(PARTIAL) not in named and _old(path))


def remove(path: Path) -> bool:
    """Remove a folder that `unused` returned; return False if a job uses it again."""
    lock = _lock(path.with_name(path.name.removesuffix(PARTIAL)))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    try:
        if not _old(path):
            return False
        shutil.rmtree(path)
    finally:
        lock.release()
    return True


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > UNUSED_SECONDS


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _wait_for(lock: FileLock, partial: Path, model: HubSnapshot) -> Iterator[None]:
    """Acquire the lock of a model, as long as the process that holds it receives bytes."""
    size, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            now = sum(file.stat().st_size for file in partial.glob("**/*")) if partial.is_dir() else 0
            if now != size:
                size, since = now, time.monotonic()
            if time.monotonic() - since > STALLED_SECONDS:
                text = f"Another process downloads {model.hub} and received nothing for {STALLED_SECONDS:.0f} s"
                raise HubUnavailable(f"{text}: end it, then retry the job.") from None
        time.sleep(POLL_SECONDS)
        yield


def _download(hub: HubConnection, commit: HubCommit, folder: Path, note: Callable[[str], object]) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    missing = [file for file in commit.files if not (folder / file.name).is_file()]
    here = sum(_size(_part(folder / file.name)) for file in missing)
    needed = sum(file.bytes for file in missing) - here
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(ENOSPC, f"{commit.model} needs {needed:,} bytes in {folder.parent}, where {free:,} are free")
    note(f"downloads {commit.model} at {commit.commit[:12]}: {needed / 1e9:.2f} GB of {commit.bytes / 1e9:.2f} GB")
    for file in missing:
        (folder / file.name).parent.mkdir(exist_ok=True)
        yield from _fetch(hub, commit, file, folder / file.name)


def _fetch(hub: HubConnection, commit: HubCommit, file: HubFile, target: Path) -> Iterator[None]:
    """Download what is missing of a file. A request that fails is repeated; the file continues where it stopped."""
    part = _part(target)
    most, failures = _size(part), 0
    while _size(part) < file.bytes:
        try:
            yield from _continue(hub, commit, file, part)
        except HubUnavailable:
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= TRIES:
                raise
            yield from _pause(PAUSE_SECONDS * 2 ** (failures - 1))
    if file.bytes == 0:
        part.touch()
    if _size(part) != file.bytes or (file.sha256 and (yield from _digest(part)) != file.sha256):
        part.unlink()
        raise HubUnavailable(f"{commit.model}: {file.name} was received with other content: retry the job.")
    part.replace(target)


def _continue(hub: HubConnection, commit: HubCommit, file: HubFile, part: Path) -> Iterator[None]:
    start = _size(part)
    with (
        hub.open(commit.model, commit.commit, file.name, start) as (continues, chunks),
        part.open("ab" if continues else "wb") as copy,
    ):
        for chunk in chunks:
            copy.write(chunk)
            if copy.tell() > file.bytes:
                return
            yield
    if _size(part) <= start:
        raise HubUnavailable(f"The hub sends no content of {file.name} of {commit.model}.")


def _digest(path: Path) -> Generator[None, None, str]:
    """Return the SHA-256 of a file as the value of the generator."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**24):
            digest.update(chunk)
            yield
    return digest.hexdigest()


def _pause(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, POLL_SECONDS))
        yield


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
