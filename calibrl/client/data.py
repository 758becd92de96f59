"""Datasets, checkpoints and result files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote
from uuid import UUID

import httpx

from calibrl.client.connection import POSTS, Connection, JobId, checked, job_path, path_of
from calibrl.client.errors import CalibrlError, Unreachable
from calibrl.schemas import CheckpointFiles, Dataset, HubDataset, Page, PreviewRow, StoredFile

CHUNK_BYTES = 2**20
UPLOAD_TIMEOUT = httpx.Timeout(60.0, read=1800.0, connect=3.0)  # the service reads every row before it answers
DOWNLOAD_TIMEOUT = httpx.Timeout(60.0, connect=3.0)
TRIES = 4  # of a file, each from where the one before came to

Progress = Callable[[int, int | None], object]  # bytes so far, and in all where that is known


class Data(Connection):
    """Datasets, checkpoints and result files. `progress` is called with transferred and total bytes."""

    def upload(
        self,
        file: Path | str | BinaryIO,
        name: str | None = None,
        project: str = "default",
        *,
        columns: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Upload a Parquet or JSONL file. The same content gives the same dataset.

        `name` defaults to the name of the file. `columns` maps fields of the plain format to columns with other names.
        After a broken connection the file is sent again from its beginning, if it can be read again.

        Raises:
            CalibrlError: the file was refused; the message names each bad row.
        """
        if isinstance(file, Path | str):
            try:
                with Path(file).open("rb") as opened:
                    return self.upload(opened, name or Path(file).stem, project, columns=columns, progress=progress)
            except OSError as error:
                raise CalibrlError(f"{file} can't be read: {error.strerror}") from error
        size = _size(file)
        begin = None if size is None else file.tell()
        headers = {"Content-Type": "application/octet-stream"} | ({"Content-Length": str(size)} if size else {})
        params = {"name": name, "project": project, **(columns or {})}

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

    def register(self, name: str, hub: str, project: str = "default", **where: object) -> Dataset:
        """Note a dataset of the Hugging Face hub by its name; `where`: `split`, `revision`, `columns`."""
        given = HubDataset.model_validate({"name": name, "hub": hub, "project": project, **where})
        return self._send("POST", Dataset, "/v1/datasets", given)

    def datasets(
        self, project: str | None = None, *, after: UUID | str | None = None, limit: int = 100
    ) -> Page[Dataset]:
        """Datasets, newest first; `after` is the id of the last one seen."""
        return self._get(Page[Dataset], "/v1/datasets", project=project, after=after, limit=limit)

    def dataset(self, id: UUID | str) -> Dataset:
        """Return a dataset."""
        return self._get(Dataset, path_of("datasets", str(id)))

    def preview(self, id: UUID | str) -> list[PreviewRow]:
        """Return the first rows of an uploaded file."""
        return self._get(Page[PreviewRow], path_of("datasets", str(id), "preview")).data

    def download_dataset(self, id: UUID | str, target: Path | str, *, progress: Progress | None = None) -> Path:
        """Have a dataset's file at `target`, as it was uploaded; begun again, it goes on where it was cut off."""
        dataset, path = self.dataset(id), Path(target)
        if dataset.sha256 is None or dataset.bytes is None:
            raise CalibrlError(f"dataset {id} is only a name here: its rows are on the hub")
        file = StoredFile(name=path.name, bytes=dataset.bytes, etag=dataset.sha256)

        def tell(count: int) -> None:
            if progress:
                progress(count, file.bytes)

        try:
            self._fetch_file(file, path_of("datasets", str(id), "content"), path, tell)
        except OSError as error:
            raise CalibrlError(f"{path} can't be written: {error.strerror}") from error
        _mark(path).unlink(missing_ok=True)
        return path

    def dataset_content(self, id: UUID | str) -> Iterator[bytes]:
        """Yield the uploaded file of a dataset in pieces."""
        return self._streamed(path_of("datasets", str(id), "content"))

    def delete_dataset(self, id: UUID | str) -> None:
        """Delete a dataset. Refused (409) while a job that has not ended uses it."""
        checked(self._once("DELETE", path_of("datasets", str(id))))

    def checkpoint(self, id: JobId, step: int) -> CheckpointFiles:
        """Return a checkpoint of a job with its files."""
        return self._get(CheckpointFiles, job_path(id, "checkpoints", str(step)))

    def results(self, id: JobId) -> list[StoredFile]:
        """Return the result files of an evaluation."""
        return self._get(Page[StoredFile], job_path(id, "results")).data

    def download_checkpoint(
        self, id: JobId, step: int, folder: Path | str, *, progress: Progress | None = None
    ) -> list[Path]:
        """Have all files of a checkpoint in a folder, each of which appears there once it is whole.

        Called again after a failure it goes on where it was cut off.
        """
        files = self.checkpoint(id, step).files
        return self._download(files, job_path(id, "checkpoints", str(step), "files"), Path(folder), progress)

    def download_results(self, id: JobId, folder: Path | str, *, progress: Progress | None = None) -> list[Path]:
        """Download the results of an evaluation into a folder, as `download_checkpoint` does."""
        return self._download(self.results(id), job_path(id, "results"), Path(folder), progress)

    def archive(self, id: JobId, step: int) -> Iterator[bytes]:
        """Yield all files of a checkpoint as one tar file, in pieces."""
        return self._streamed(job_path(id, "checkpoints", str(step), "archive"))

    def result(self, id: JobId, name: str) -> Iterator[bytes]:
        """Yield a result file of an evaluation in pieces."""
        return self._streamed(_below(job_path(id, "results"), name))

    def _download(self, files: list[StoredFile], source: str, folder: Path, progress: Progress | None) -> list[Path]:
        total, done, paths = sum(file.bytes for file in files), 0, []
        for file in files:
            target = folder / _safe(file.name)
            before = done

            def tell(count: int, before: int = before) -> None:
                if progress:
                    progress(before + count, total)

            try:
                self._fetch_file(file, _below(source, file.name), target, tell)
            except OSError as error:
                raise CalibrlError(f"{target} can't be written: {error.strerror}") from error
            done += file.bytes
            paths.append(target)
        for target in paths:
            _mark(target).unlink(missing_ok=True)
        return paths

    def _fetch_file(self, file: StoredFile, source: str, target: Path, tell: Callable[[int], None]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{file.etag}.partial")  # of this content, and no other
        mark = _mark(target)
        if target.is_file() and mark.is_file() and mark.read_text() == file.etag:
            tell(file.bytes)
            return
        for attempt in range(TRIES):
            try:
                self._continue(file, source, partial, tell)
                break
            except Unreachable:
                if attempt == TRIES - 1:
                    raise
        if partial.stat().st_size != file.bytes:
            partial.unlink()
            raise CalibrlError(f"{file.name} came with another size than its {file.bytes} bytes; try again")
        partial.replace(target)
        mark.write_text(file.etag)

    def _continue(self, file: StoredFile, source: str, partial: Path, tell: Callable[[int], None]) -> None:
        """Download the missing part of a file."""
        with partial.open("ab") as copy:
            have = copy.tell()
            if have >= file.bytes:
                return
            headers = {"Range": f"bytes={have}-", "If-Range": f'"{file.etag}"', "Accept-Encoding": "identity"}
            try:
                with self._http.stream("GET", source, headers=headers, timeout=DOWNLOAD_TIMEOUT) as answer:
                    if not answer.is_success:
                        answer.read()
                    checked(answer)
                    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                        raise CalibrlError(f"{file.name} has changed meanwhile; ask for it again")
                    for chunk in answer.iter_bytes(CHUNK_BYTES):
                        copy.write(chunk)
                        tell(copy.tell())
            except httpx.HTTPError as error:
                raise Unreachable(f"{self.url} broke off while {file.name} was fetched: {error}") from error


def _mark(target: Path) -> Path:
    """Return the mark that names the content of a partial file until all files of the folder are complete."""
    return target.with_name(f".{target.name}.etag")


def _below(source: str, name: str) -> str:
    """Return the path of a file in a URL, with each folder name quoted."""
    return "/".join([source, *(quote(part, safe="") for part in name.split("/"))])


def _safe(name: str) -> PurePosixPath:
    """Return the local path of a file name from the service, which must stay in the folder: the name is not trusted."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or {"..", "."} & set(path.parts) or "\\" in name or not name.isprintable():
        raise CalibrlError(f"the service names a file {name!r}, which would not lie in the folder")
    return path


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
