"""Uploads: a file as the body or as a part of a form, written to disk while it is received."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from pathlib import PurePath

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.deps import read
from calibrl.schemas import UploadOptions
from jobs import models
from jobs.errors import FieldError, Invalid
from jobs.files import datasets
from jobs.files.datasets import IncomingFile

WRITE_BYTES = 2**20  # per write
IDLE_SECONDS = 60.0  # limit for a client that sends nothing
FIELD_BYTES = 1_000  # of all fields of a form except its file
CHECKS = CapacityLimiter(2)  # files inspected at the same time


@dataclass(frozen=True)
class Sent:
    """The file name and the other fields of an upload form."""

    file_name: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """Name for the dataset, from the file name; None if no character of the file name is allowed."""
        stem = PurePath(self.file_name or "").stem
        return re.sub(r"[^A-Za-z0-9 ._\-]+", "-", stem).lstrip(" ._-")[:120] or None


async def receive(request: Request, incoming: IncomingFile, limit: int, fields: Collection[str] = ()) -> Sent:
    """Receive the file of a request, and `fields` of a form. `RequestChecks` counts the received bytes.

    Raises:
        HTTPException: the body is too long or incomplete, is not a form, or the client sends nothing.
        Invalid: the form has no file, or has other fields.
    """
    if int(request.headers.get("Content-Length", 0)) > limit:
        raise HTTPException(413, f"The body is longer than {limit} bytes.")
    kind = request.headers.get("Content-Type", "")
    form = _Form(kind, fields) if kind.lower().startswith("multipart/form-data") else None
    waiting = bytearray()
    async for chunk in _chunks(request):
        waiting += form.take(chunk) if form else chunk
        if len(waiting) >= WRITE_BYTES:
            await run_in_threadpool(incoming.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(incoming.write, bytes(waiting))
    await run_in_threadpool(incoming.close)
    return form.sent() if form else Sent()


async def keep(
    request: Request,
    begin: Callable[[], Awaitable[Session]],
    incoming: IncomingFile,
    name: str,
    options: UploadOptions,
) -> tuple[models.Dataset, bool]:
    """Inspect and store a received file. Return its dataset, and True if the dataset is new.

    The transaction begins after all slow work.

    Raises:
        Invalid: rows can't be used.
    """
    same = await read(request, lambda session: datasets.find_same(session, incoming, options))
    if same is not None:
        return same, False
    inspection = await to_thread.run_sync(datasets.inspect_upload, incoming, name, options, limiter=CHECKS)
    async with contextmanager_in_threadpool(datasets.put_into_storage(incoming)) as stored:
        note = partial(
            datasets.save, await begin(), stored, inspection, name=name, options=options, user=request.state.caller.user
        )
        return await run_in_threadpool(note)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"No data received for {IDLE_SECONDS:.0f} s; send the file again.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The body is incomplete: the client disconnected.") from None
        yield chunk


class _Form:
    """Parser of a form: the part `file` is required; some other short fields are accepted."""

    def __init__(self, content_type: str, fields: Collection[str]) -> None:
        boundary = _header(content_type).get_param("boundary", "")
        if not isinstance(boundary, str) or not 0 < len(boundary) <= 200 or not boundary.isascii():
            raise HTTPException(400, "The form's Content-Type names no boundary.")
        callbacks = {"on_part_begin": self._begin, "on_part_data": self._data, "on_end": self._end}
        callbacks |= {"on_header_field": self._field, "on_header_value": self._value, "on_header_end": self._header_end}
        callbacks["on_headers_finished"] = self._headers_finished
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        self._name, self._text = bytearray(), bytearray()
        self._disposition = ""
        self._body = bytearray()
        self._files: list[str] = []
        self._wanted, self._fields, self._part = fields, dict[str, bytearray](), ""
        self._whole = False

    def take(self, chunk: bytes) -> bytes:
        """Parse the next bytes of the form; return the bytes of the file among them."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise HTTPException(400, f"The form can't be read: {error}") from error
        body = bytes(self._body)
        self._body.clear()
        return body

    def sent(self) -> Sent:
        """Return the form's fields other than the file, once the whole body was read."""
        if not self._whole:
            raise HTTPException(400, "The form is incomplete: its last boundary is missing.")
        if not self._files:
            raise Invalid("The form has no file.", (FieldError("file", "Field required"),))
        fields = {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}
        return Sent(self._files[0], fields)

    def _begin(self) -> None:
        self._disposition = ""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._text += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._text.decode("utf-8", "replace")
        self._name.clear()
        self._text.clear()

    def _headers_finished(self) -> None:
        named = dict(_header(self._disposition).get_params() or [])
        part = self._part = named.get("name", "")
        if part in self._fields or (part == "file" and self._files):
            raise _refused(part, "Given twice")
        if part in self._wanted:
            self._fields[part] = bytearray()
        elif part == "file":
            self._files.append(named.get("filename", ""))
        else:
            known = (
                f"the fields are file, {', '.join(self._wanted)}"
                if self._wanted
                else "send all options except the file as query parameters"
            )
            raise _refused(part or "form", f"Unknown field: {known}")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._body += data[start:end]
            return
        self._fields[self._part] += data[start:end]
        if sum(map(len, self._fields.values())) > FIELD_BYTES:
            raise _refused(self._part, f"Too long: at most {FIELD_BYTES} bytes")

    def _end(self) -> None:
        self._whole = True


def _refused(field: str, text: str) -> Invalid:
    return Invalid("The form can't be accepted.", (FieldError(field, text),))


def _header(text: str) -> Message:
    header = Message()
    header["Content-Type"] = text.replace("\r", " ").replace("\n", " ")
    return header
