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
SECRETS = frozenset({"key", "secret"})  # fields of answers
SHOWN_ONCE = "(it was shown once)"
_VISIBLE = re.compile(r"[!-~]{1,255}")
_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "sent again within 24 hours with the same body, it is answered as before and not done twice",
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
        """Have the key for as long as the session's transaction lasts.

        Raises:
            RequestInProgress: another request has it just now.
            Invalid: it was another request's.
            _Replay: the request was answered before.
        """
        digest = sha256(self._caller + self._text.encode()).digest()
        numbers = [int.from_bytes(digest[at : at + 4], signed=True) for at in (0, 4)]
        if not idempotency.try_lock(session, (numbers[0], numbers[1])):
            raise RequestInProgress("A request with this Idempotency-Key is being answered at this moment; ask again.")
        self.look(session)
        self.session = session

    def look(self, session: Session) -> None:
        """Go on unless there is an answer.

        Raises:
            Invalid: it was another request's.
            _Replay: the request was answered before.
        """
        stored = idempotency.find(session, self._caller, self._text)
        if stored is None:
            return
        if stored.request != self._request:
            fault = FieldError(HEADER, "was the key of another request: take a new one")
            raise Invalid("The key was used before.", (fault,))
        headers = {REPLAYED: "true"} | ({"Location": stored.location} if stored.location else {})
        raise _Replay(Response(stored.body, stored.status, headers, stored.media_type))

    def store(self, response: Response) -> None:
        """Keep an answer in the session's transaction, which is yet to be committed."""
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
        """The endpoint, between the look at the key and the keeping of the answer, which precedes the commit."""
        handle = super().get_route_handler()
        streamed = self.body_field is None  # what the endpoint itself takes in is not read here: it may be large

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
    """An answer as it is kept: new keys and secrets are shown once, and kept nowhere as they are."""
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
    """Have a request's key as long as the session's transaction lasts; before anything else in it."""
    key: _Key = request.state.idempotency_key
    key.claim(session)


def look(request: Request, session: Session) -> None:
    """Answer a request that was answered before, if it has a key; for what lasts before the key can be had."""
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
