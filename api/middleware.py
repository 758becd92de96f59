"""Middleware of every request: its id and log line, the answer after a crash, and the check of the API key."""

import asyncio
import math
import re
import secrets
import time
from contextlib import suppress
from importlib.metadata import version
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import prometheus
from api.errors import AWAY, database_away, problem
from api.limits import Places, RateLimit, Remembered
from calibrl.schemas import TOKEN_PREFIX
from jobs.access import callers
from jobs.access.callers import Caller
from jobs.db import session_scope
from jobs.settings import get_settings

REQUEST_ID = "X-Request-ID"
VERSION = version("calibrl")
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/schemas/job-spec.json"})  # all other paths need a key
UPLOADS = frozenset({"/v1/datasets/upload", "/v1/files"})  # paths whose bodies are written to disk, not held in memory
FORM_BYTES = 10_000  # overhead of a form around its file
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
READING = frozenset({"GET", "HEAD", "OPTIONS"})
SESSIONS_OF_BROWSERS = frozenset({"/v1/sessions", "/v1/sessions/current"})  # which read-only keys begin and end
DRY_RUNS = re.compile(r"/v1/jobs:plan|/v1/jobs/[^/]+/replay")  # POST requests that change nothing
LOOKUPS = 4  # concurrent checks of keys: each takes a connection in addition to `api.deps.SESSIONS`
NEW_LOOKUPS = 1  # of these, of keys that were not valid before in this process
AT_ONCE = 8  # concurrent requests of a user, until each has begun its answer: fewer than `api.deps.SESSIONS`
PATIENCE_SECONDS = 60.0  # that a request waits for others of its user
STRANGERS_PER_SECOND, STRANGERS_AT_ONCE = 5.0, 50  # limit for requests without a valid key, per address
NOTED_AGAIN_SECONDS = 600.0  # after which a refused key is noted in the audit log again
NOTED_PATH = 200  # characters of the path of a refused key in the audit log
NOTED_PER_SECOND, NOTED_AT_ONCE = 0.1, 50  # limit for refused keys in the audit log
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
EXPOSED = ("ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", REQUEST_ID)
PREFLIGHT_SECONDS = 3600  # for which a browser remembers which requests a page of another site can send
# Files, archives and streams: they are binary, or are sent as they come.
_UNCOMPRESSED = re.compile(r".*/(content|archive|stream|tensorboard|results/.*|files(/.*)?|images/\w+)")
_NO_CONTENT = "default-src 'none'; frame-ancestors 'none'"

log = structlog.get_logger()


def route_path(scope: Scope) -> str:
    """Return the path that routes are matched with: the path of the request, without the prefix of a proxy."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def changes(method: str, path: str) -> bool:
    """Return True if the request can change data."""
    return method not in READING and not DRY_RUNS.fullmatch(path)


class RequestLog:
    """Gives each request an id, one log line, and a problem document if it crashes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = header if _ACCEPTED_ID.fullmatch(header) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), scope["state"])
            await send(message)

        began = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("request crashed")
                if status:  # a part of the answer was already sent, so the connection must be closed
                    raise
                await problem(scope, 500, "The service failed; its log has the request's id.")(
                    scope, receive, send_with_id
                )
            finally:
                seconds = time.perf_counter() - began
                prometheus.answered(scope["method"], _route(scope), status, seconds)
                milliseconds = round(seconds * 1000, 1)
                log.info("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)


def _route(scope: Scope) -> str:
    """Return the path of the route that answers, with the names of its parameters. A route has no prefix."""
    route = scope.get("route")
    if route is None:
        return prometheus.OTHER
    prefix = "/v1" if route_path(scope).startswith("/v1/") else ""
    return f"{prefix}{route.path}"


def _add_headers(headers: MutableHeaders, state: dict[str, Any]) -> None:
    headers[REQUEST_ID] = state["request_id"]
    headers["X-CalibRL-Version"] = VERSION
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    if get_settings().allowed_origins:
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    headers.setdefault("Content-Security-Policy", _NO_CONTENT)
    headers.setdefault("Cache-Control", "no-store")
    for name, value in state.get("rate_limit", {}).items():
        headers[name] = value


class AllowedOrigins(CORSMiddleware):
    """Lets pages of the sites in CALIBRL_ALLOWED_ORIGINS call the API from a browser."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            allow_origins=[one.strip() for one in get_settings().allowed_origins.split(",") if one.strip()],
            allow_methods=("*",),
            allow_headers=("*",),
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.allow_origins:
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Compression(GZipMiddleware):
    """Compresses answers, except files and streams."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _UNCOMPRESSED.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class RequestChecks:
    """Refuse a request before its body is read: no valid key, over the rate limit, or too large."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        settings = get_settings()
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._of_users = RateLimit(settings.requests_per_second, settings.requests_at_once)
        self._places = Places(AT_ONCE, PATIENCE_SECONDS)
        self._lookups, self._new_lookups = CapacityLimiter(LOOKUPS - NEW_LOOKUPS), CapacityLimiter(NEW_LOOKUPS)
        self._first_lookups: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()  # by hash of the key
        self._known_keys = Remembered()  # hashes of keys that were valid; each key is looked up again
        self._of_strangers = RateLimit(STRANGERS_PER_SECOND, STRANGERS_AT_ONCE)
        self._of_notes = RateLimit(NOTED_PER_SECOND, NOTED_AT_ONCE)
        self._of_noted_keys = RateLimit(1 / NOTED_AGAIN_SECONDS, 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        receive = _bounded(receive, self._limit(scope))
        caller: Caller | None = scope["state"].get("caller")
        if caller is None or route_path(scope) in UPLOADS:
            await self._app(scope, receive, send)
        else:
            await self._in_turn(caller.user, scope, receive, send)

    async def _in_turn(self, user: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request when its user has fewer than AT_ONCE others in progress. An answer that has begun does not
        count: a stream or a download can take hours."""
        async with self._places.one(user) as free:
            if free is None:
                await _too_many(scope, 1.0)(scope, receive, send)
                return

            async def send_and_free(message: Message) -> None:
                free()
                await send(message)

            await self._app(scope, receive, send_and_free)

    async def _refusal(self, scope: Scope) -> ASGIApp | None:
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            return problem(scope, 400, "The address holds a NUL character.")
        if route_path(scope) in OPEN_PATHS:
            return None
        try:
            caller = await self._identified(scope)
        except AWAY as error:
            return database_away(scope, error)
        if isinstance(caller, float):
            return _too_many(scope, caller)
        if caller is None:
            return _unauthorized(scope)
        seconds = self._of_users.wait(caller.user)
        scope["state"]["rate_limit"] = self._of_users.headers(caller.user)
        if seconds > 0:
            return _too_many(scope, seconds)
        path = route_path(scope)
        if caller.scope == "read" and changes(scope["method"], path) and path not in SESSIONS_OF_BROWSERS:
            return problem(scope, 403, "This key is read-only.", type="urn:calibrl:forbidden", title="Forbidden")
        scope["state"]["caller"] = caller
        structlog.contextvars.bind_contextvars(user=caller.user)
        return None

    async def _identified(self, scope: Scope) -> Caller | float | None:
        """Return the caller; None if the key is not valid; or the seconds to wait. A key that was never valid in this
        process is counted before it is looked up, so that strangers do not take the look-ups of others."""
        key, request_id = _key(scope), scope["state"]["request_id"]
        digest = callers.key_hash(key)
        if digest not in self._known_keys:
            first = self._first_lookups.setdefault(digest, asyncio.Lock())
            async with first:  # many requests with a new key count as one until it is known
                if digest not in self._known_keys:
                    return await self._first_look(key, digest, scope)
        known = await to_thread.run_sync(_caller, key, request_id, limiter=self._lookups)
        if known is None:  # it was revoked or has expired
            self._known_keys.discard(digest)
            await self._note_refusal(key, scope)
        return known

    async def _first_look(self, key: str, digest: bytes, scope: Scope) -> Caller | float | None:
        client = scope.get("client")
        address = client[0] if client else ""
        if (seconds := self._of_strangers.wait(address)) > 0:
            return seconds
        request_id = scope["state"]["request_id"]
        try:
            caller = await to_thread.run_sync(_caller, key, request_id, limiter=self._new_lookups) if key else None
        except AWAY:
            self._of_strangers.give_back(address)
            raise
        if caller is not None:
            self._known_keys.add(digest)
            self._of_strangers.give_back(address)
        else:
            await self._note_refusal(key, scope)
        return caller

    async def _note_refusal(self, key: str, scope: Scope) -> None:
        """Record a refused key in the audit log, within limits: strangers can send any number. Tokens of sessions are
        left out: each of them ends after hours."""
        if not key or key.startswith(TOKEN_PREFIX) or self._of_noted_keys.wait(callers.key_hash(key).hex()) > 0:
            return
        if self._of_notes.wait("") > 0:
            return
        client = scope.get("client")
        sent = route_path(scope)[:NOTED_PATH], scope["state"]["request_id"], client[0] if client else ""
        with suppress(*AWAY):
            await to_thread.run_sync(_note_refused, key, *sent, limiter=self._new_lookups)

    def _limit(self, scope: Scope) -> int:
        """Return the maximum number of bytes of a body."""
        if route_path(scope) in UPLOADS:
            return get_settings().max_upload_bytes + FORM_BYTES
        return self._max_body_bytes


def _unauthorized(scope: Scope) -> ASGIApp:
    if not _key(scope):
        text, challenge = "Send the header `Authorization: Bearer <api key>`.", "Bearer"
    else:  # no word on which: the sender can be a stranger
        text = "The service does not accept this key: it is wrong, has expired or was revoked."
        challenge = 'Bearer error="invalid_token"'
    return problem(scope, 401, text, headers={"WWW-Authenticate": challenge})


def _too_many(scope: Scope, seconds: float) -> ASGIApp:
    headers = {"Retry-After": str(math.ceil(seconds))}
    return problem(scope, 429, f"Too many requests; try again in {seconds:.1f} s.", headers=headers)


def _caller(key: str, request_id: str) -> Caller | None:
    if not key:
        return None
    with session_scope() as session:
        caller = callers.identify(session, key)
        if caller is None and _is_service_key(key):
            callers.keep_service_key(session, key, request_id)
            caller = callers.identify(session, key)
        return caller


def _note_refused(key: str, path: str, request_id: str, address: str) -> None:
    with session_scope() as session:
        callers.note_refusal(session, key, path=path, request_id=request_id, address=address)


def _is_service_key(key: str) -> bool:
    known = get_settings().api_key
    return known is not None and secrets.compare_digest(key.encode(), known.get_secret_value().encode())


def _key(scope: Scope) -> str:
    scheme, _, key = Headers(scope=scope).get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


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
