"""What every request passes through: its id and log line, the answer to a crash, and the check of the key."""

import re
import secrets
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from jobs.settings import get_settings

REQUEST_ID = "X-Request-ID"
UPLOADS = frozenset({"/v1/datasets/upload"})  # whose bodies go to disk, not into memory
FORM_BYTES = 10_000  # of a form around a file
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")

log = structlog.get_logger()


class RequestLog:
    """Gives each request an id, one log line, and a problem document if it crashes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        began = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("request crashed")
                if status:  # half an answer is out; cutting the connection is all that is left
                    raise
                await problem(scope, 500, "The service failed; its log has the request's id.")(
                    scope, receive, send_with_id
                )
            finally:
                milliseconds = round((time.perf_counter() - began) * 1000, 1)
                log.info("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)


class Gate:
    """Turns away requests to /v1 without the key before anything of them is read, and what is too big to read."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _is_guarded(scope["path"]) and not _has_key(scope):
                headers = {"WWW-Authenticate": "Bearer"}
                refusal = problem(scope, 401, "Send the header `Authorization: Bearer <api key>`.", headers=headers)
                await refusal(scope, receive, send)
                return
            if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
                await problem(scope, 400, "The address holds a NUL character.")(scope, receive, send)
                return
            receive = _bounded(receive, self._limit(scope))
        await self._app(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        """Bytes that a body may have."""
        if scope["path"] in UPLOADS:
            return get_settings().max_upload_bytes + FORM_BYTES
        return self._max_body_bytes


def _bounded(receive: Receive, limit: int) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413, f"The body is longer than {limit} bytes.")
        return message

    return bounded


def _is_guarded(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _has_key(scope: Scope) -> bool:
    scheme, _, key = Headers(scope=scope).get("Authorization", "").partition(" ")
    expected = get_settings().need("api_key")
    return scheme.lower() == "bearer" and secrets.compare_digest(key.strip().encode(), expected.encode())
