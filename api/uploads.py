"""A file in a request's body, alone or as a form's part, written to disk as it comes."""

import asyncio
from collections.abc import AsyncIterator
from email.message import Message

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from jobs.datasets import Arrival
from jobs.errors import FieldError, Invalid

WRITE_BYTES = 2**20  # written at once
IDLE_SECONDS = 60.0  # after which a client that sends nothing is given up


async def receive(request: Request, arrival: Arrival, limit: int) -> str | None:
    """Take in the request's file; the name that a form gives it. The gate counts the bytes that come.

    Raises HTTPException (a body that is too long, stops coming, or is no form) and Invalid (a form without its file).
    """
    if int(request.headers.get("Content-Length", 0)) > limit:
        raise HTTPException(413, f"The body is longer than {limit} bytes.")
    kind = request.headers.get("Content-Type", "")
    form = _Form(kind) if kind.lower().startswith("multipart/form-data") else None
    waiting = bytearray()
    async for chunk in _chunks(request):
        waiting += form.take(chunk) if form else chunk
        if len(waiting) >= WRITE_BYTES:
            await run_in_threadpool(arrival.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(arrival.write, bytes(waiting))
    await run_in_threadpool(arrival.close)
    return form.file_name() if form else None


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"Nothing came for {IDLE_SECONDS:.0f} s.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The body was cut off.") from None
        yield chunk


class _Form:
    """The parts of a form, of which one, named `file`, is wanted and no other is taken."""

    def __init__(self, content_type: str) -> None:
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
        self._whole = False

    def take(self, chunk: bytes) -> bytes:
        """Read on; the bytes of the file that came."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise HTTPException(400, f"The form can't be read: {error}") from error
        found = bytes(self._body)
        self._body.clear()
        return found

    def file_name(self) -> str:
        """The name that the form gives its file, once all of it was read."""
        if not self._whole:
            raise HTTPException(400, "The form was cut off.")
        if not self._files:
            raise Invalid("The form has no file.", (FieldError("file", "Field required"),))
        return self._files[0]

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
        part = named.get("name", "")
        if part != "file" or self._files:
            text = "Given twice" if part == "file" else "Unknown field: all but the file goes into the address"
            raise Invalid("The form can't be accepted.", (FieldError(part or "form", text),))
        self._files.append(named.get("filename", ""))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._body += data[start:end]

    def _end(self) -> None:
        self._whole = True


def _header(text: str) -> Message:
    header = Message()
    header["Content-Type"] = text.replace("\r", " ").replace("\n", " ")
    return header
