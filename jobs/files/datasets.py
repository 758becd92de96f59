"""Files of datasets: receive, inspect, store, and fetch to the machine of a job."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from calibrl.schemas import HubDataset, KnownData, UploadOptions
from calibrl_core.data.schema import AUTO, Columns, FileData, HubData, HubSource
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid, StorageUnavailable
from jobs.files.allowed_sources import hub_problem
from jobs.files.inspection import Inspection, inspect
from jobs.files.storage import Storage
from jobs.repository import datasets, projects
from jobs.settings import Settings, get_settings

ABANDONED_SECONDS = 86_400.0  # age at which an incomplete upload of a killed process is removed
UNUSED_SECONDS = 7 * 86_400.0  # age since the last use at which a cached dataset is removed
PARQUET = b"PAR1"  # first and last bytes of the format
LISTED_JOBS = 10


class IncomingFile:
    """A file that is being received: write its bytes, then `close`. The end of the context removes what is left of
    it."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.data_dir / "uploads"
        with _full_disk_reported():
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
        """Append bytes.

        Raises:
            StorageUnavailable: the disk is full.
        """
        with _full_disk_reported():
            self._file.write(chunk)
        self._digest.update(chunk)
        self._head = (self._head + chunk[:4])[:4]
        self.bytes += len(chunk)

    def close(self) -> None:
        """Complete the file. It gets the suffix by which readers recognise its format."""
        with _full_disk_reported():
            self._file.close()
        self.path = self.path.rename(self.path.with_suffix(f".{self.format}"))

    @property
    def format(self) -> str:
        return "parquet" if self._head == PARQUET else "jsonl"

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@dataclass
class PendingDataset:
    """A received file in storage. `saved`: it is recorded as a dataset with this id, so it stays."""

    id: UUID
    incoming: IncomingFile
    saved: bool = False


@dataclass(frozen=True)
class LocalFile:
    """File of a dataset as a worker uses it. `path`: local path; downloaded from `key` if missing."""

    key: str
    path: str
    sha256: str
    dataset_id: UUID


def storage() -> Storage:
    """Return the storage of this process's settings."""
    return Storage(get_settings().storage_url)


def key_of(dataset: models.Dataset) -> str:
    """Return the key of a dataset's file in storage."""
    return f"datasets/{dataset.id}.{dataset.format}"


def check_upload(session: Session, options: UploadOptions, visible_projects: frozenset[str] | None) -> None:
    """Check an upload before its file arrives.

    Args:
        visible_projects: projects that the caller can see; None: all.

    Raises:
        Invalid: the project does not exist.
    """
    _check_project(session, options.project, visible_projects)


def inspect_upload(incoming: IncomingFile, name: str, options: UploadOptions) -> Inspection:
    """Inspect a received file. Reads all of it, which can take minutes: hold no transaction meanwhile.

    Raises:
        Invalid: rows cannot be used. The first faults are listed, all are counted.
    """
    inspection = inspect(incoming.path, name, options.columns, options.format)
    if inspection.fault_count:
        count = f"The file has {inspection.fault_count} error{'s' if inspection.fault_count > 1 else ''}"
        more = f"; {inspection.unlisted} of them are not listed" if inspection.unlisted else ""
        raise Invalid(f"{count}{more}.", tuple(inspection.faults))
    return inspection


def find_same(session: Session, incoming: IncomingFile, options: UploadOptions) -> models.Dataset | None:
    """Return the dataset of the project with the same content, or None."""
    return datasets.find(session, {"project": options.project, "sha256": incoming.sha256, **_reading(options)})


@contextmanager
def put_into_storage(incoming: IncomingFile) -> Iterator[PendingDataset]:
    """Put a file into storage. At the end of the context the file is deleted again, unless `note` recorded it as a
    dataset."""
    file = PendingDataset(uuid4(), incoming)
    key, store = key_of(models.Dataset(id=file.id, format=incoming.format)), storage()
    store.put(key, incoming.path)
    try:
        yield file
    finally:
        if not file.saved:
            store.delete(key)


def save(
    session: Session, file: PendingDataset, inspection: Inspection, *, name: str, options: UploadOptions, user: str
) -> tuple[models.Dataset, bool]:
    """Record a stored file as a dataset, unless the project has one with the same content. Return it, and True if it
    is new."""
    row = {
        "id": file.id,
        "project": options.project,
        "user": user,
        "name": name,
        "format": file.incoming.format,
        "sha256": file.incoming.sha256,
        "bytes": file.incoming.bytes,
        **_reading(options),
        **inspection.model_dump(mode="json", exclude={"faults", "fault_count", "unlisted"}),
    }
    dataset, file.saved = datasets.add(session, row)
    return dataset, file.saved


def register(
    session: Session, request: HubDataset, *, user: str, visible_projects: frozenset[str] | None
) -> tuple[models.Dataset, bool]:
    """Record a dataset of the hub by its name, without loading it. Return it, and True if it is new.

    Raises:
        Invalid: the project does not exist, or jobs cannot load this dataset.
    """
    _check_project(session, request.project, visible_projects)
    if refused := hub_problem(request.hub):
        raise Invalid("The dataset was not accepted.", (FieldError("hub", refused),))
    hub = request.model_dump(include={*HubSource.model_fields})
    row = {"project": request.project, "user": user, "name": request.name, "columns": hub["columns"], "hub": hub}
    return datasets.add(session, row | {"preview": []})


def remove(session: Session, dataset_id: UUID, projects: frozenset[str] | None = None) -> str | None:
    """Delete a dataset. Return the key of the file to delete after the commit, or None.

    Raises:
        NotFound: no such dataset.
        Conflict: unfinished jobs use it.
    """
    dataset = datasets.lock(session, dataset_id, projects)
    used = datasets.users(session, dataset_id)
    if used:
        more = f" and {len(used) - LISTED_JOBS} more" if len(used) > LISTED_JOBS else ""
        named = ", ".join(map(str, used[:LISTED_JOBS]))
        raise Conflict(f"Dataset {dataset_id} is used by unfinished jobs: {named}{more}.")
    datasets.remove(session, dataset_id)
    return key_of(dataset) if dataset.hub is None else None


def open_content(dataset: models.Dataset) -> BinaryIO:
    """Open the file of a dataset for reading and seeking.

    Raises:
        StorageUnavailable: the file is not available.
    """
    try:
        return storage().open(key_of(dataset))
    except FileNotFoundError as error:
        raise _missing_file(dataset.id) from error


def source(dataset: models.Dataset, choice: KnownData) -> FileData | HubData:
    """Return the data source from which a trainer on this machine reads the dataset."""
    columns, form = columns_of(dataset, choice), format_of(dataset, choice)
    if dataset.hub is not None:
        hub = {**dataset.hub, "columns": columns, "format": form}
        return HubData(**hub, rows=choice.rows, weight=choice.weight)
    path = str(_local_path(dataset))
    return FileData(
        path=path,
        columns=columns,
        format=form,
        rows=choice.rows,
        weight=choice.weight,
        title=dataset.name,
        image_files=False,
    )


def columns_of(dataset: models.Dataset, choice: KnownData) -> Columns:
    """Return the columns of the dataset, with the answer column of the choice if it names one."""
    return Columns.model_validate(dataset.columns | ({"answer": choice.answer} if choice.answer else {}))


def format_of(dataset: models.Dataset, choice: KnownData) -> str:
    """Return the row format of the choice, or else the one that was chosen with the dataset."""
    own: str = dataset.read_as if dataset.hub is None else dataset.hub.get("format", AUTO)
    return own if choice.format == AUTO else choice.format


def files(rows: Mapping[UUID, models.Dataset]) -> tuple[LocalFile, ...]:
    """Return the files that must be on this machine before a trainer reads these datasets."""
    return tuple(
        LocalFile(key_of(row), str(_local_path(row)), str(row.sha256), row.id)
        for row in rows.values()
        if row.hub is None
    )


def fetch_to_machine(file: LocalFile) -> Iterator[None]:
    """Fetch the file of a dataset to this machine, one chunk between two yields.

    Raises:
        StorageUnavailable: the file is not available.
    """
    path, store = Path(file.path), storage()
    if store.path(file.key):
        if not path.is_file():
            raise _missing_file(file.dataset_id)
        return
    with suppress(FileNotFoundError):
        os.utime(path)  # marks the file as in use
        return
    with suppress(FileNotFoundError):
        _remove_old(path.parent, UNUSED_SECONDS)
    try:
        yield from store.fetch(file.key, path, file.sha256)
    except FileNotFoundError as error:
        raise _missing_file(file.dataset_id) from error


def _reading(options: UploadOptions) -> dict[str, Any]:
    """Return how the file is read, as it is stored."""
    return {"columns": options.columns.model_dump(), "read_as": options.format}


def _check_project(session: Session, slug: str, visible_projects: frozenset[str] | None) -> None:
    if not (visible_projects is None or slug in visible_projects) or not projects.exists(session, slug):
        raise Invalid("The dataset was not accepted.", (FieldError("project", f"project {slug!r} does not exist"),))


def _missing_file(dataset_id: UUID) -> StorageUnavailable:
    return StorageUnavailable(f"The file of dataset {dataset_id} is missing in storage.")


def _local_path(dataset: models.Dataset) -> Path:
    """Return the path of the file on this machine: in storage if it is a folder, else in the cache."""
    copy = get_settings().data_dir / "cache" / "datasets" / f"{dataset.sha256}.{dataset.format}"
    return storage().path(key_of(dataset)) or copy


def _remove_old(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # removed by another process
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


@contextmanager
def _full_disk_reported() -> Iterator[None]:
    """Report a full disk as StorageUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise StorageUnavailable("The disk of the server is full.") from error
        raise
