"""`Idempotency-Key`: a POST repeated with the same key gets the first answer again and is not executed twice.

The answer is stored in the transaction of the change itself, under a lock that this transaction holds. A committed
change therefore always has its answer, even if the process dies at any moment.
"""

import json
import re
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api.bodies import BoundedRoute, read_body
from jobs.errors import FieldError, Invalid, RequestInProgress
from jobs.repository import idempotency

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
SECRETS = frozenset({"key", "secret", "token"})  # fields of answers
SHOWN_ONCE = "(it was shown once)"
_VISIBLE = re.compile(r"[!-~]{1,255}")
_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A request repeated within 24 hours with the same key and body gets the first answer again and is "
    "not executed twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


class _Replay(Exception):
    """The request was answered before."""

    def __init__(self, response: Response) -> None:
        self.response = response


class _Key:
    """The claim of one request's key; `session`: the transaction that holds the claim, once it is open."""

    session: Session | None = None

    def __init__(self, text: str, caller: bytes, request: bytes) -> None:
        self._text, self._caller, self._request = text, caller, request

    def claim(self, session: Session) -> None:
        """Lock the key until the end of the session's transaction.

        Raises:
            RequestInProgress: another request holds the key.
            Invalid: the key was used for another request.
            _Replay: the request was answered before.
        """
        digest = sha256(self._caller + self._text.encode()).digest()
        numbers = [int.from_bytes(digest[at : at + 4], signed=True) for at in (0, 4)]
        if not idempotency.try_lock(session, (numbers[0], numbers[1])):
            raise RequestInProgress("A request with this Idempotency-Key is in progress; try again.")
        self.look(session)
        self.session = session

    def look(self, session: Session) -> None:
        """Check that the key has no stored answer.

        Raises:
            Invalid: the key was used for another request.
            _Replay: the request was answered before.
        """
        stored = idempotency.find(session, self._caller, self._text)
        if stored is None:
            return
        if stored.request != self._request:
            fault = FieldError(HEADER, "was used for another request: use a new key")
            raise Invalid("The key was used before.", (fault,))
        headers = {REPLAYED: "true"} | ({"Location": stored.location} if stored.location else {})
        raise _Replay(Response(stored.body, stored.status, headers, stored.media_type))

    def store(self, response: Response) -> None:
        """Store an answer in the session's transaction, before its commit."""
        assert self.session is not None
        idempotency.store(
            self.session,
            self._caller,
            self._text,
            request=self._request,
            status=response.status_code,
            location=response.headers.get("location"),
            media_type=response.headers.get("content-type"),
            body=_without_secrets(bytes(response.body)),
        )


class IdempotentRoute(BoundedRoute):
    """Route class of all routers whose POSTs accept an `Idempotency-Key`. The endpoint must depend on `deps.Db`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if "POST" in (options.get("methods") or ()):
            options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "parameters": [_PARAMETER]}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint with the check of the key before it; the answer is stored before the commit."""
        handle = super().get_route_handler()
        streamed = self.body_field is None  # then the endpoint reads the body, which can be large

        async def handled(request: Request) -> Response:
            key = await _key_of(request, streamed)
            request.state.idempotency_key = key
            try:
                response = await handle(request)
            except _Replay as replay:
                return replay.response
            if key and key.session and response.status_code < 300:
                await run_in_threadpool(key.store, response)
            return response

        return handled


def _without_secrets(body: bytes) -> bytes:
    """Return an answer without new keys and secrets: they are shown once, and never stored in clear text."""
    try:
        content = json.loads(body)
    except ValueError:
        return body
    if not isinstance(content, dict) or not SECRETS & content.keys():
        return body
    return json.dumps(content | dict.fromkeys(SECRETS & content.keys(), SHOWN_ONCE)).encode()


def has_key(request: Request) -> bool:
    """Return True if the request carries a key to claim."""
    return getattr(request.state, "idempotency_key", None) is not None


def claim(request: Request, session: Session) -> None:
    """Lock a request's key until the end of the session's transaction, which must begin with this call."""
    key: _Key = request.state.idempotency_key
    key.claim(session)


def look(request: Request, session: Session) -> None:
    """Replay the answer of a request that was answered before, if it has a key; for use before slow work.

    Raises:
        Invalid: the key was used for another request.
        _Replay: the request was answered before.
    """
    if has_key(request):
        key: _Key = request.state.idempotency_key
        key.look(session)


async def _key_of(request: Request, streamed: bool) -> _Key | None:
    text = request.headers.get(HEADER)
    if request.method != "POST" or text is None:
        return None
    if not _VISIBLE.fullmatch(text):
        raise Invalid("The key can't be used.", (FieldError(HEADER, "1 to 255 visible ASCII characters"),))
    what = [request.method, request.url.path, request.url.query, request.headers.get("content-length", "")]
    digest = sha256("\n".join(what).encode())
    if not streamed:
        digest.update(await read_body(request))
    caller = sha256(request.headers.get("authorization", "").encode()).digest()
    return _Key(text, caller, digest.digest())
