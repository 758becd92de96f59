"""Data sets from their arrival to their use: taken in, looked into, kept in storage, found again by a job's worker."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from calibrl.schemas import HubDataset, KnownData, UploadOptions
from calibrl_core.data.schema import Columns, FileData, HubData, HubSource
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid, StorageAway
from jobs.files.allowed_sources import hub_problem
from jobs.files.inspection import Inspection, inspect
from jobs.files.storage import Storage
from jobs.repository import datasets, projects
from jobs.settings import Settings, get_settings

ABANDONED_SECONDS = 86_400.0  # after which what a killed process was taking in is removed
UNUSED_SECONDS = 7 * 86_400.0  # after which a worker's copy of a data set is removed
PARQUET = b"PAR1"  # begins and ends such a file
LISTED_JOBS = 10


class Arrival:
    """A file that is being taken in: write its bytes, then `close`. Leaving the context removes what is left of it."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.data_dir / "uploads"
        with _room():
            folder.mkdir(parents=True, exist_ok=True)
            _remove_old(folder, ABANDONED_SECONDS)
            self.path = folder / f"{uuid4().hex}.partial"
            self._file = self.path.open("xb")
        self._digest = sha256()
        self._head = b""
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Add bytes. Raises StorageAway where the disk is full."""
        with _room():
            self._file.write(chunk)
        self._digest.update(chunk)
        self._head = (self._head + chunk[:4])[:4]
        self.bytes += len(chunk)

    def close(self) -> None:
        """All has come; the file gets the name by which readers know its format."""
        with _room():
            self._file.close()
        self.path = self.path.rename(self.path.with_suffix(f".{self.format}"))

    @property
    def format(self) -> str:
        return "parquet" if self._head == PARQUET else "jsonl"

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@dataclass
class Stored:
    """A file that has come and is in storage; `noted`: as a data set of this id, with which it stays."""

    id: UUID
    arrival: Arrival
    noted: bool = False


@dataclass(frozen=True)
class StoredFile:
    """A data set's file, as a worker gets hold of it: it is at `path`, or from storage's `key` comes to be there."""

    key: str
    path: str
    sha256: str
    dataset_id: UUID


def storage() -> Storage:
    """Where this process's settings say that uploads are kept."""
    return Storage(get_settings().storage_url)


def key_of(dataset: models.Dataset) -> str:
    """By which storage keeps its file."""
    return f"datasets/{dataset.id}.{dataset.format}"


def check_upload(session: Session, options: UploadOptions, among: frozenset[str] | None) -> None:
    """Refuse what can be refused before a file comes: Invalid. `among`: the projects that exist for who asks; None:
    all."""
    _check_project(session, options.project, among)


def look_into(arrival: Arrival, name: str, columns: Columns) -> Inspection:
    """What the file holds. Reads it whole, which may take minutes: hold no transaction meanwhile.

    Raises:
        Invalid: rows can't be used; the first of them are named, all are counted.
    """
    found = inspect(arrival.path, name, columns)
    if found.fault_count:
        more = found.fault_count - len(found.faults)
        count = f"{found.fault_count} thing{'s' if found.fault_count > 1 else ''} wrong with the file"
        raise Invalid(f"{count}{f'; the first {len(found.faults)} are listed' if more else ''}.", tuple(found.faults))
    return found


def same(session: Session, arrival: Arrival, options: UploadOptions) -> models.Dataset | None:
    """The project's data set of the same content, if it has one."""
    return datasets.find(session, options.project, arrival.sha256, options.columns.model_dump(), None)


@contextmanager
def stored(arrival: Arrival) -> Iterator[Stored]:
    """A file put into storage, which leaves it with the context unless `note` has made it a data set."""
    file = Stored(uuid4(), arrival)
    key, kept = key_of(models.Dataset(id=file.id, format=arrival.format)), storage()
    kept.put(key, arrival.path)
    try:
        yield file
    finally:
        if not file.noted:
            kept.delete(key)


def note(
    session: Session, file: Stored, found: Inspection, *, name: str, options: UploadOptions, user: str
) -> tuple[models.Dataset, bool]:
    """Make a stored file a data set, unless the project has one of the same content; and whether it is new."""
    row = {
        "id": file.id,
        "project": options.project,
        "user": user,
        "name": name,
        "format": file.arrival.format,
        "sha256": file.arrival.sha256,
        "bytes": file.arrival.bytes,
        "columns": options.columns.model_dump(),
        **found.model_dump(mode="json", include={"rows", "has_columns", "has_experts", "preview"}),
    }
    dataset, file.noted = datasets.add(session, row)
    return dataset, file.noted


def register(
    session: Session, given: HubDataset, *, user: str, among: frozenset[str] | None
) -> tuple[models.Dataset, bool]:
    """Note a data set of the hub by its name, unseen; and whether it is new.

    Raises:
        Invalid: there is no such project, or jobs may not load this data set.
    """
    _check_project(session, given.project, among)
    if refused := hub_problem(given.hub):
        raise Invalid("The data set was not accepted.", (FieldError("hub", refused),))
    hub = given.model_dump(include={*HubSource.model_fields})
    row = {"project": given.project, "user": user, "name": given.name, "columns": hub["columns"], "hub": hub}
    return datasets.add(session, row | {"preview": []})


def remove(session: Session, dataset_id: UUID, projects: frozenset[str] | None = None) -> str | None:
    """Forget a data set; the key of the file to delete once that is committed.

    Raises:
        NotFound: no such data set.
        Conflict: jobs that have not ended use it.
    """
    dataset = datasets.lock(session, dataset_id, projects)
    used = datasets.users(session, dataset_id)
    if used:
        more = f" and {len(used) - LISTED_JOBS} more" if len(used) > LISTED_JOBS else ""
        named = ", ".join(map(str, used[:LISTED_JOBS]))
        raise Conflict(f"Data set {dataset_id} is used by jobs that have not ended: {named}{more}.")
    datasets.remove(session, dataset_id)
    return key_of(dataset) if dataset.hub is None else None


def open_content(dataset: models.Dataset) -> BinaryIO:
    """The file of a data set, to read and seek in.

    Raises:
        StorageAway: it can't be had.
    """
    try:
        return storage().open(key_of(dataset))
    except FileNotFoundError as error:
        raise _gone(dataset.id) from error


def source(dataset: models.Dataset, choice: KnownData) -> FileData | HubData:
    """The data set as a trainer on this machine reads it."""
    columns = columns_of(dataset, choice)
    if dataset.hub is not None:
        return HubData(**{**dataset.hub, "columns": columns}, rows=choice.rows)
    path = str(_local_path(dataset))
    return FileData(path=path, columns=columns, rows=choice.rows, title=dataset.name, image_files=False)


def columns_of(dataset: models.Dataset, choice: KnownData) -> Columns:
    """Which column holds what, as the data set says and the choice of it."""
    return Columns.model_validate(dataset.columns | ({"answer": choice.answer} if choice.answer else {}))


def files(known: Mapping[UUID, models.Dataset]) -> tuple[StoredFile, ...]:
    """The files that must be on this machine before a trainer reads these data sets."""
    return tuple(
        StoredFile(key_of(one), str(_local_path(one)), str(one.sha256), one.id)
        for one in known.values()
        if one.hub is None
    )


def bring(file: StoredFile) -> Iterator[None]:
    """Have a data set's file on this machine, a piece between two yields.

    Raises:
        StorageAway: it can't be had.
    """
    path, kept = Path(file.path), storage()
    if kept.path(file.key):
        if not path.is_file():
            raise _gone(file.dataset_id)
        return
    with suppress(FileNotFoundError):
        os.utime(path)  # in use
        return
    with suppress(FileNotFoundError):
        _remove_old(path.parent, UNUSED_SECONDS)
    try:
        yield from kept.fetch(file.key, path, file.sha256)
    except FileNotFoundError as error:
        raise _gone(file.dataset_id) from error


def _check_project(session: Session, slug: str, among: frozenset[str] | None) -> None:
    if not (among is None or slug in among) or not projects.exists(session, slug):
        raise Invalid("The data set was not accepted.", (FieldError("project", f"there is no project {slug!r}"),))


def _gone(dataset_id: UUID) -> StorageAway:
    return StorageAway(f"The file of data set {dataset_id} is not in storage any more.")


def _local_path(dataset: models.Dataset) -> Path:
    """Where its file lies on this machine: in storage itself, if that is a folder, or in a copy."""
    copy = get_settings().data_dir / "cache" / "datasets" / f"{dataset.sha256}.{dataset.format}"
    return storage().path(key_of(dataset)) or copy


def _remove_old(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # somebody else was faster
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


@contextmanager
def _room() -> Iterator[None]:
    """Tells a full disk as what it is."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise StorageAway("There is no room for the file on the server's disk.") from error
        raise
