"""Downloads of files, which continue where an earlier download stopped."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import httpx

from calibrl.client.connection import Connection, checked
from calibrl.client.errors import CalibrlError, Unreachable
from calibrl.schemas import StoredFile

CHUNK_BYTES = 2**20
DOWNLOAD_TIMEOUT = httpx.Timeout(60.0, connect=3.0)
TRIES = 4  # per file; each continues where the previous one stopped

Progress = Callable[[int, int | None], object]  # transferred bytes, and total bytes if known


class FileTransfer(Connection):
    """Downloads of files. `progress` is called with transferred and total bytes."""

    def _download(self, files: list[StoredFile], source: str, folder: Path, progress: Progress | None) -> list[Path]:
        total, done, paths = sum(file.bytes for file in files), 0, []
        for file in files:
            target = folder / _safe(file.name)
            before = done

            def report(count: int, before: int = before) -> None:
                if progress:
                    progress(before + count, total)

            try:
                self._fetch_file(file, file_path(source, file.name), target, report)
            except OSError as error:
                raise CalibrlError(f"{target} can't be written: {error.strerror}") from error
            done += file.bytes
            paths.append(target)
        for target in paths:
            mark_of(target).unlink(missing_ok=True)
        return paths

    def _fetch_file(self, file: StoredFile, source: str, target: Path, report: Callable[[int], None]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{file.etag}.partial")  # only of this content
        mark = mark_of(target)
        if target.is_file() and mark.is_file() and mark.read_text() == file.etag:
            report(file.bytes)
            return
        for attempt in range(TRIES):
            try:
                self._continue(file, source, partial, report)
                break
            except Unreachable:
                if attempt == TRIES - 1:
                    raise
        if partial.stat().st_size != file.bytes:
            partial.unlink()
            raise CalibrlError(f"{file.name} was received with a size other than its {file.bytes} bytes; try again")
        partial.replace(target)
        mark.write_text(file.etag)

    def _continue(self, file: StoredFile, source: str, partial: Path, report: Callable[[int], None]) -> None:
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
                        raise CalibrlError(f"{file.name} has changed during the download; download it again")
                    for chunk in answer.iter_bytes(CHUNK_BYTES):
                        copy.write(chunk)
                        report(copy.tell())
            except httpx.HTTPError as error:
                raise Unreachable(
                    f"{self.url} closed the connection during the download of {file.name}: {error}"
                ) from error


def mark_of(target: Path) -> Path:
    """Return the mark that names the content of a partial file until all files of the folder are complete."""
    return target.with_name(f".{target.name}.etag")


def file_path(source: str, name: str) -> str:
    """Return the path of a file in a URL, with each folder name quoted."""
    return "/".join([source, *(quote(part, safe="") for part in name.split("/"))])


def _safe(name: str) -> PurePosixPath:
    """Return the local path of a file name from the service, which must stay in the folder: the name is not trusted."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or {"..", "."} & set(path.parts) or "\\" in name or not name.isprintable():
        raise CalibrlError(f"the service names a file {name!r}, which would not lie in the folder")
    return path
