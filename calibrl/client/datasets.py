"""Datasets: upload, registration, preview and download."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import httpx

from calibrl.client import lookup
from calibrl.client.connection import POSTS, checked, path_of
from calibrl.client.errors import CalibrlError
from calibrl.client.file_transfer import CHUNK_BYTES, FileTransfer, Progress, mark_of
from calibrl.client.packing import data_name, packed
from calibrl.schemas import DataReport, Dataset, HubDataset, Page, PreviewRow, ReportRequest, StoredFile

UPLOAD_TIMEOUT = httpx.Timeout(60.0, read=1800.0, connect=3.0)  # the service reads every row before it answers


class DatasetRequests(FileTransfer):
    """Requests for datasets."""

    def upload(
        self,
        file: Path | str | BinaryIO,
        name: str | None = None,
        project: str | None = None,
        *,
        columns: dict[str, str] | None = None,
        format: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Upload a data file (JSON, Parquet, CSV), or a folder or zip archive with one. Image files that its rows name
        are put into the rows. The same content gives the same dataset.

        `name` defaults to the name of the file, `project` to `default` or your only project. `columns` maps fields to
        columns with other names. `format`: row format; None: that of the columns.
        After a broken connection the file is sent again from its beginning, if it can be read again.

        Raises:
            CalibrlError: the file was refused; the message names each bad row.
        """
        if isinstance(file, Path | str):
            try:
                with packed(Path(file), columns or {}) as complete, complete.open("rb") as opened:
                    name = name or data_name(Path(file))
                    return self.upload(opened, name, project, columns=columns, format=format, progress=progress)
            except OSError as error:
                raise CalibrlError(f"{file} can't be read: {error.strerror}") from error
        size = _size(file)
        begin = None if size is None else file.tell()
        headers = {"Content-Type": "application/octet-stream"} | ({"Content-Length": str(size)} if size else {})
        params = {"name": name, "project": project, "format": format, **(columns or {})}

        def send() -> httpx.Response:
            if begin is not None:
                file.seek(begin)
            return self._once(
                "POST",
                "/v1/datasets/upload",
                params={key: value for key, value in params.items() if value is not None},
                content=_pieces(file, size, progress),
                headers=headers,
                timeout=UPLOAD_TIMEOUT,
            )

        return self._parsed(Dataset, checked(self._again(1 if begin is None else POSTS, send)))

    def register(self, name: str, hub: str, project: str | None = None, **where: object) -> Dataset:
        """Register a dataset of the Hugging Face hub by its name. `where` has `split`, `revision` and `columns`."""
        named = {} if project is None else {"project": project}
        dataset = HubDataset.model_validate({"name": name, "hub": hub, **named, **where})
        return self._send("POST", Dataset, "/v1/datasets", dataset)

    def datasets(
        self,
        project: str | None = None,
        *,
        user: str | None = None,
        q: str | None = None,
        after: UUID | str | None = None,
        limit: int = 100,
    ) -> Page[Dataset]:
        """Return datasets, newest first. `q`: text in the name, or the first characters of the id. `after` is the id of
        the last dataset of the previous page.
        """
        return self._get(Page[Dataset], "/v1/datasets", project=project, user=user, q=q, after=after, limit=limit)

    def dataset(self, id: UUID | str) -> Dataset:
        """Return a dataset."""
        return self._get(Dataset, path_of("datasets", str(id)))

    def find_dataset(self, text: str) -> Dataset:
        """Return the dataset that a text names: `latest`, an id, the beginning of one id, or the name of one dataset.

        Raises:
            CalibrlError: no dataset, or more than one, matches.
        """
        if lookup.is_id(text):
            return self.dataset(text)
        return lookup.find(text, "dataset", lambda after: self.datasets(after=after))

    def preview(self, id: UUID | str) -> list[PreviewRow]:
        """Return the first rows of an uploaded file."""
        return self._get(Page[PreviewRow], path_of("datasets", str(id), "preview")).data

    def dataset_report(
        self,
        id: UUID | str,
        *,
        rewards: list[Any] | None = None,
        against: UUID | str | None = None,
        format: str | None = None,
        model: str | None = None,
        max_prompt_tokens: int | None = None,
        max_completion_tokens: int | None = None,
    ) -> DataReport:
        """Return the data report of an uploaded file's first rows.

        `rewards`: those of the job, as in its spec; by default `math`. `against`: id of a dataset with validation rows.
        `format`: row format to read the file in; by default that of its upload. `model`: folder of a saved model on the
        server, whose tokenizer counts tokens for the two limits.
        """
        options = {
            "rewards": rewards,
            "against": against,
            "format": format,
            "model": model,
            "max_prompt_tokens": max_prompt_tokens,
            "max_completion_tokens": max_completion_tokens,
        }
        request = ReportRequest.model_validate({name: value for name, value in options.items() if value is not None})
        return self._send("POST", DataReport, path_of("datasets", str(id), "report"), request)

    def download_dataset(self, id: UUID | str, target: Path | str, *, progress: Progress | None = None) -> Path:
        """Download the uploaded file of a dataset to `target`.

        Called again after a failure, it continues where the first download stopped.

        Raises:
            CalibrlError: the rows of the dataset are on the hub, or the service does not answer, or `target` cannot be
                written.
        """
        dataset, path = self.dataset(id), Path(target)
        if dataset.sha256 is None or dataset.bytes is None:
            raise CalibrlError(f"dataset {id} has no file in the service: its rows are on the hub")
        file = StoredFile(name=path.name, bytes=dataset.bytes, etag=dataset.sha256)

        def report(count: int) -> None:
            if progress:
                progress(count, file.bytes)

        try:
            self._fetch_file(file, path_of("datasets", str(id), "content"), path, report)
        except OSError as error:
            raise CalibrlError(f"{path} can't be written: {error.strerror}") from error
        mark_of(path).unlink(missing_ok=True)
        return path

    def dataset_content(self, id: UUID | str) -> Iterator[bytes]:
        """Yield the uploaded file of a dataset in pieces."""
        return self._streamed(path_of("datasets", str(id), "content"))

    def rename_dataset(self, id: UUID | str, name: str) -> Dataset:
        """Set the name of a dataset. Its id stays."""
        return self._send("PATCH", Dataset, path_of("datasets", str(id)), {"name": name})

    def delete_dataset(self, id: UUID | str) -> None:
        """Delete a dataset. Refused (409) while a job that has not ended uses it."""
        checked(self._once("DELETE", path_of("datasets", str(id))))


def _size(file: BinaryIO) -> int | None:
    """Return the bytes from the current position of a file to its end, if known."""
    try:
        here = file.tell()
        size = file.seek(0, os.SEEK_END) - here
        file.seek(here)
    except (OSError, AttributeError):
        return None
    return size


def _pieces(file: BinaryIO, size: int | None, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        sent += len(chunk)
        if progress:
            progress(sent, size)
