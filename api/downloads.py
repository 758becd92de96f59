"""Files as answers: one whole file, a byte range, or several files as one archive; streamed from disk."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from calibrl.schemas import StoredFile
from jobs.files.artifacts import open_file

CHUNK_BYTES = 2**18
BLOCK = tarfile.BLOCKSIZE
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file", "content": _BINARY},
    206: {"description": "The range that was asked for", "content": _BINARY},
    304: {"description": "If-None-Match names its ETag"},
}
ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A tar file",
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class _Streamed(StreamingResponse):
    """A response that closes its file, also if the client disconnects before the first byte."""

    def __init__(self, file: BinaryIO, content: Iterator[bytes], status_code: int, headers: dict[str, str]) -> None:
        super().__init__(content, status_code, headers, "application/octet-stream")
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def send(request: Request, file: BinaryIO, *, name: str, size: int, etag: str) -> Response:
    """Return the file, or the byte range in the request. The file is closed with the answer.

    The range is ignored if If-Range names other content, or if there are several ranges (RFC 9110).
    """
    tag = f'"{etag}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    try:
        part = _range(request, tag, size)
    except HTTPException:
        file.close()
        raise
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    answer = _Streamed(file, _read(file, start, end), 206 if part else 200, headers)
    if tag in request.headers.get("If-None-Match", ""):
        file.close()
        return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    if request.method == "HEAD":
        file.close()
        return Response(status_code=answer.status_code, headers=headers, media_type=answer.media_type)
    return answer


def archive(folder: Path, files: Sequence[StoredFile], name: str) -> Response:
    """Return files of a folder as a tar file, each with its name in the folder."""
    headers = [_tar_header(file) for file in files]
    size = sum(len(header) + _padded(file.bytes) for header, file in zip(headers, files, strict=True)) + 2 * BLOCK
    return StreamingResponse(
        _tar(folder, files, headers),
        media_type="application/x-tar",
        headers={"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{name}"'},
    )


def _range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """Return the first byte of the requested range and the one after the last; None: send the whole file.

    Raises:
        HTTPException: the range is outside the file (416).
    """
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", tag) != tag:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    elif last:
        start, end = max(0, size - int(last)), size
    else:
        return None
    if start >= end:
        raise HTTPException(416, f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _read(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        chunk = file.read(min(CHUNK_BYTES, end - start))
        if not chunk:
            raise OSError("the file was truncated while it was sent")
        start += len(chunk)
        yield chunk


def _tar(folder: Path, files: Sequence[StoredFile], headers: Sequence[bytes]) -> Iterator[bytes]:
    for stored, header in zip(files, headers, strict=True):
        with open_file(folder, stored) as file:
            yield header
            yield from _read(file, 0, stored.bytes)
            yield bytes(_padded(stored.bytes) - stored.bytes)
    yield bytes(2 * BLOCK)


def _tar_header(file: StoredFile) -> bytes:
    info = tarfile.TarInfo(file.name)
    info.size, info.mode = file.bytes, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
