"""Sends requests, repeats them after failures, and parses answers."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    wait_exponential,
)

from calibrl.client.address import address_and_key, checked_key, http_address
from calibrl.client.errors import CalibrlError, TimedOut, Unreachable
from calibrl.schemas.fault_texts import fault_text
from calibrl.settings import network_variables

MOST = 1000  # maximum number of items per page
TIMEOUT = httpx.Timeout(15.0, connect=3.0)
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=3.0)
RETRIED = frozenset({502, 503, 504})
GETS, POSTS = (
    3,
    6,
)  # attempts, within 0.3 s and 2.5 s: a killed service may first have to roll back
BACKOFF = wait_exponential(multiplier=0.1, max=1)
LONGEST_WAIT = 10.0  # total seconds that a request waits after answers 429
PATIENCE = 180.0  # seconds after its first attempt during which a request that timed out is sent again
IDEMPOTENCY_KEY = "Idempotency-Key"
IN_FLIGHT = '"urn:calibrl:in-flight"'  # problem type: the first request is still in progress
SHOWN_ONCE = "(it was shown once)"  # replaces a secret in a repeated answer
UNDONE = {"key": "revoke", "secret": "remove webhook"}  # fields with secrets, and the request that removes their object
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
Model = TypeVar("Model", bound=BaseModel)
JobId = UUID | str


class Connection:
    """Connection to one service with one key. The methods of each resource use it."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        data_dir: Path | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
    ) -> None:
        self.url, key = address_and_key(url, api_key, data_dir)
        address = http_address(self.url)
        on_this_machine = address.host in LOOPBACK
        headers = {"Authorization": f"Bearer {checked_key(key, 'check CALIBRL_API_KEY')}"}
        if on_this_machine:  # compression takes longer than it saves
            headers["Accept-Encoding"] = "identity"
        try:
            self._http = httpx.Client(
                base_url=address,
                headers=headers,
                timeout=timeout,
                trust_env=not on_this_machine,  # no HTTP_PROXY for this machine
                # TLS certificates take 80 ms to read. An HTTP request to this machine needs none.
                verify=not (on_this_machine and address.scheme == "http"),
            )
        except (ImportError, ValueError, OSError) as error:  # of a proxy or of certificates that httpx cannot use
            variables = network_variables()
            if not variables:
                raise
            text = f"check {', '.join(variables)} of the environment: {' '.join(str(error).split())}"
            raise CalibrlError("The connection can't be set up", detail=text) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, model: type[Model], path: str, **params: object) -> Model:
        return self._parsed(model, self._fetch(path, **params))

    def _fetch(self, path: str, **params: object) -> httpx.Response:
        """Send a GET. Repeat it after a broken connection, a failed proxy, a timeout or 429: reading twice is safe."""
        given = {
            name: [str(one) for one in value] if isinstance(value, list | tuple) else str(value)
            for name, value in params.items()
            if value is not None
        }
        return checked(self._again(GETS, lambda: self._once("GET", path, params=given)))

    def _ask(self, model: type[Model], path: str) -> Model:
        return self._parsed(model, checked(self._post(path)))

    def _post(self, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        """Send a POST. Repeat it like a GET: the service recognises the idempotency key and acts once."""
        keyed = {**(headers or {}), IDEMPOTENCY_KEY: uuid4().hex}
        return self._again(POSTS, lambda: self._once("POST", path, headers=keyed, **options))

    def _again(self, attempts: int, send: Callable[[], httpx.Response]) -> httpx.Response:
        retrying = Retrying(
            stop=lambda state: state.attempt_number >= attempts or _takes_too_long(state),
            wait=_pause,
            retry=retry_if_exception_type(Unreachable) | retry_if_result(_passing_trouble),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        response: httpx.Response = retrying(send)
        return response

    def _send(
        self, method: str, model: type[Model], path: str, payload: Mapping[str, Any] | BaseModel, **options: Any
    ) -> Model:
        content = payload.model_dump(mode="json", exclude_unset=True) if isinstance(payload, BaseModel) else payload
        try:
            body = json.dumps(content, allow_nan=False)
        except (TypeError, ValueError) as error:
            field = next(_not_finite(content), None)
            text = f"{field} is not a finite number" if field else str(error)
            raise CalibrlError(f"the request contains a value that JSON cannot express: {text}") from error
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        send = self._post if method == "POST" else partial(self._once, method)
        answer = send(path, content=body, headers=headers, **options)
        return self._parsed(model, _with_its_secret(checked(answer)))

    def _delete(self, path: str) -> httpx.Response:
        return checked(self._once("DELETE", path))

    def _streamed(self, path: str, params: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Send a GET and yield its answer in pieces, for answers of any size."""
        try:
            with self._http.stream("GET", path, params=params, timeout=STREAM_TIMEOUT) as response:
                if not response.is_success:
                    response.read()
                yield from checked(response).iter_bytes()
        except httpx.HTTPError as error:
            raise CalibrlError(f"{self.url} closed the connection during {path}: {error}") from error

    def _once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"nothing answers at {self.url}: start the service with `calibrl up`") from error
        except httpx.TimeoutException as error:
            raise TimedOut(f"{self.url} did not answer {method} {path} in time; is it overloaded?") from error
        except (httpx.RemoteProtocolError, httpx.NetworkError) as error:
            raise Unreachable(f"{self.url} closed the connection: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CalibrlError(f"the request for {path} to {self.url} failed: {error}") from error

    def _parsed(self, model: type[Model], response: httpx.Response) -> Model:
        try:
            return model.model_validate_json(response.content, context=self)  # a `Job` stores its client
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "body"
            raise CalibrlError(
                f"{response.url} gave an answer that is not a valid {model.__name__}",
                status=response.status_code,
                detail=f"{where}: {fault_text(fault)}; check the URL and the version of the API",
            ) from error


def _passing_trouble(response: httpx.Response) -> bool:
    in_flight = response.status_code == httpx.codes.CONFLICT and IN_FLIGHT in response.text
    return in_flight or response.status_code in RETRIED or _requested_wait(response) is not None


def _requested_wait(response: httpx.Response) -> float | None:
    """Return the seconds that the service asks a client to wait after 429."""
    after = response.headers.get("Retry-After", "")
    requested = response.status_code == httpx.codes.TOO_MANY_REQUESTS and after.isascii() and after.isdecimal()
    return float(after) if requested else None


def _pause(state: RetryCallState) -> float:
    """Return the seconds before the next attempt."""
    assert state.outcome is not None
    requested = None if state.outcome.failed else _requested_wait(state.outcome.result())
    return BACKOFF(state) if requested is None else requested


def _takes_too_long(state: RetryCallState) -> bool:
    """Return True if one more attempt would exceed the time limit of the caller."""
    assert state.outcome is not None
    if isinstance(state.outcome.exception(), TimedOut):
        return (state.seconds_since_start or 0) > PATIENCE
    return state.idle_for + state.upcoming_sleep > LONGEST_WAIT


def _with_its_secret(response: httpx.Response) -> httpx.Response:
    """Return the answer to a POST, if it has all its secrets.

    Raises:
        CalibrlError: the first answer was lost, and this repeated one has no secret: the service does not store it.
    """
    if response.headers.get("Idempotent-Replayed") != "true":
        return response
    content = response.json()
    lost = next((name for name in UNDONE if isinstance(content, dict) and content.get(name) == SHOWN_ONCE), None)
    if lost is None:
        return response
    raise CalibrlError(
        f"the {lost} was created, but the answer that contains it was lost: "
        f"{UNDONE[lost]} {content.get('id')} and create another",
        status=response.status_code,
    )


def _not_finite(value: object, place: str = "") -> Iterator[str]:
    """Yield the path of each number in a JSON value that is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, part in parts:
        yield from _not_finite(part, f"{place}.{name}" if place else str(name))


def path_of(*parts: str) -> str:
    """Return the path of a resource of the API, each part quoted."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def job_path(id: JobId, *rest: str) -> str:
    """Return the path of a job, or of something below it."""
    return path_of("jobs", str(id), *rest)


def checked(response: httpx.Response) -> httpx.Response:
    """Return a successful response.

    Raises:
        CalibrlError: the response is an error, usually a problem document (RFC 9457).
    """
    if response.is_success:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        raise CalibrlError(f"{response.url} answered {response.status_code}", status=response.status_code)
    raise CalibrlError(
        str(problem["title"]),
        status=response.status_code,
        detail=problem.get("detail"),
        errors=tuple(problem.get("errors") or ()),
    )
