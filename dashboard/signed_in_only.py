"""Answers requests without a session with nothing but the sign-in.

Streamlit would begin a session of its own for every visitor, and keep files that any of them uploads in memory.
"""

from collections import OrderedDict
from hashlib import sha256
from time import monotonic
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from calibrl.client import CalibrlError, Client
from calibrl.schemas import TOKEN_PREFIX
from dashboard import signin

OPEN_PATHS = frozenset({signin.PATH, signin.OUT, "/_stcore/health"})
AGAIN_SECONDS = 30.0  # during which a token is not asked for again
REMEMBERED = 10_000  # tokens that are valid, and tokens that are not
LOOKUPS = 4  # tokens that are asked for at the same time
NEW_LOOKUPS = 1  # of these, tokens that were not valid before: strangers can send any number
MOST_WAITING = 20  # requests with such tokens that wait for their look-up
ANSWER_SECONDS = 10.0  # limit of the answer of the API
MAX_TOKEN_LENGTH = 100
REFUSED, AWAY = (401, "Sign in first."), (503, "The API is unreachable; try again in a moment.")


class SignedInOnly:
    """Middleware around the whole dashboard. The API says which sessions are valid."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._valid: OrderedDict[bytes, float] = OrderedDict()  # until when (`time.monotonic`), by hash of the token
        self._refused: OrderedDict[bytes, float] = OrderedDict()  # the same
        self._lookups, self._new_lookups = CapacityLimiter(LOOKUPS - NEW_LOOKUPS), CapacityLimiter(NEW_LOOKUPS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = await self._refusal(connection.cookies.get(signin.cookie_name(connection), ""))
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await _answer(connection, refusal)(scope, receive, send)

    async def _refusal(self, token: str) -> tuple[int, str] | None:
        """Return status and text for a request with this token; None: the session is valid."""
        if not token.startswith(TOKEN_PREFIX) or len(token) > MAX_TOKEN_LENGTH:
            return REFUSED
        digest = sha256(token.encode()).digest()
        if self._valid.get(digest, 0.0) > monotonic():
            return None
        if self._refused.get(digest, 0.0) > monotonic():
            return REFUSED
        limiter = self._lookups if digest in self._valid else self._new_lookups
        if limiter is self._new_lookups and limiter.statistics().tasks_waiting >= MOST_WAITING:
            return AWAY
        status = await to_thread.run_sync(_status, token, limiter=limiter)
        if status == 401:
            self._valid.pop(digest, None)
            _remember(self._refused, digest)
            return REFUSED
        if status != 200:  # the pages of those who were signed in say what the API says
            return None if digest in self._valid else AWAY
        _remember(self._valid, digest)
        return None


def _remember(tokens: OrderedDict[bytes, float], digest: bytes) -> None:
    tokens[digest] = monotonic() + AGAIN_SECONDS
    tokens.move_to_end(digest)
    if len(tokens) > REMEMBERED:
        tokens.popitem(last=False)


def _answer(connection: HTTPConnection, refusal: tuple[int, str]) -> Response:
    status, text = refusal
    is_page = connection.scope["method"] in ("GET", "HEAD") and "text/html" in connection.headers.get("accept", "")
    if status != REFUSED[0] or not is_page:
        return PlainTextResponse(text, status, headers=signin.HEADERS)
    path, query = connection.url.path, connection.url.query
    to = urlencode({"next": f"{path}?{query}" if query else path})
    return RedirectResponse(f"{signin.PATH}?{to}", 303, headers=signin.HEADERS)


def _status(token: str) -> int | None:
    """Return the status of the API's answer to a token; None: it does not answer."""
    try:
        with Client(api_key=token, timeout=ANSWER_SECONDS) as client:
            client.me()
    except CalibrlError as error:
        return error.status
    return 200
