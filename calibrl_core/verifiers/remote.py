"""Rewards that a service gives, and their requests: bounded in time and size, and repeated if the service is busy."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
from pydantic import Field

from calibrl_core.verifiers.base import Deferred, OnFailure, Verdict, Verifier
from calibrl_core.verifiers.services import Endpoint, Services

MOST_ANSWER = 4 * 2**20  # bytes of a response
MOST_IN_A_ROW = 3  # failed requests after which the rest of a batch is not asked for
FIRST_PAUSE = 0.5  # seconds before the second try; it doubles with each try
LONGEST_PAUSE = 30.0  # seconds, also if the service asks for more


class AnswerError(Exception):
    """A request without a usable answer. The message has the reason, and no content of the request.

    `of_service`: the service is at fault, and further requests may fail too.
    """

    def __init__(self, message: str, *, of_service: bool = True) -> None:
        super().__init__(message)
        self.of_service = of_service


class RequestRefusedError(AnswerError):
    """A request that the service refuses with a status from 300 to 499."""


class RemoteVerifier(Verifier):
    """Settings of a reward term that a service gives."""

    time_limit_seconds: float = Field(30.0, gt=0, le=600, description="Maximum seconds per request and try.")
    on_failure: OnFailure = Field(
        "drop_group",
        description="Effect of a missing score, which always counts in the metrics. zero: the score is 0. drop_group: "
        "the step leaves out all completions of the prompt; in validation and evaluations the score is 0. stop: the "
        "run ends with the reason, and keeps its checkpoint.",
    )
    retries: int = Field(
        3,
        ge=0,
        le=10,
        description="Further tries after status 429 or 500 and above, a lost connection or a timeout, with pauses of "
        "0.5, 1, 2, ... seconds, or as long as Retry-After says, 30 at most.",
    )

    def check_allowed(self, services: Services) -> None:
        """Check that a run can use the service.

        Raises:
            RewardServiceError: it cannot; the message has the remedy.
        """
        raise NotImplementedError

    async def ask(self, requests: Sequence[Deferred], services: Services) -> list[Verdict]:
        """Return a verdict per request, in order."""
        raise NotImplementedError


Ask = Callable[[Sequence[Deferred]], Awaitable[list[Verdict]]]


def given(score: float | None) -> Verdict:
    """Return the verdict of a service; None is a missing one."""
    return Verdict(0.0, "the service gave no score") if score is None else Verdict(score)


async def ask_each(ask: Ask, requests: Sequence[Deferred], size: int, at_once: int) -> list[Verdict]:
    """Return a verdict per request. `ask` gets `size` of them, `at_once` times at the same time.

    After MOST_IN_A_ROW failures in a row the rest fails at once: a service that is down costs a bounded time.
    """
    verdicts: list[Verdict] = [Verdict(0.0, "not asked")] * len(requests)
    free, failures = asyncio.Semaphore(at_once), list[str]()

    async def one(start: int) -> None:
        async with free:
            part = requests[start : start + size]
            if len(failures) >= MOST_IN_A_ROW:
                reason = f"not asked: {MOST_IN_A_ROW} requests in a row had failed ({failures[-1]})"
                verdicts[start : start + size] = [Verdict(0.0, reason)] * len(part)
                return
            began = time.monotonic()
            try:
                found = await ask(part)
                failures.clear()
            except AnswerError as error:
                if error.of_service:
                    failures.append(str(error))
                verdicts[start : start + size] = [Verdict(0.0, str(error))] * len(part)
                return
            seconds = (time.monotonic() - began) / len(part)
            verdicts[start : start + size] = [verdict._replace(seconds=seconds) for verdict in found]

    await asyncio.gather(*(one(start) for start in range(0, len(requests), size)))
    return verdicts


def endpoint_headers(endpoint: Endpoint) -> dict[str, str]:
    """Return the headers of requests to a server of models."""
    headers = {"Content-Type": "application/json", "User-Agent": "CalibRL-rewards/1"}
    if endpoint.key is not None:
        headers["Authorization"] = f"Bearer {endpoint.key.get_secret_value()}"
    return headers


async def post(
    client: httpx.AsyncClient,
    url: httpx.URL,
    body: bytes,
    headers: Callable[[], Mapping[str, str]],
    *,
    seconds: float,
    retries: int,
    extensions: Mapping[str, Any] | None = None,
) -> Any:
    """Return the JSON of the response to a POST. `headers`: of each try. `seconds`: maximum per try, in total.

    Raises:
        AnswerError: there is none after the last try, or its status is 300 or above.
    """
    for attempt in range(retries + 1):
        pause = FIRST_PAUSE * 2**attempt
        try:
            async with asyncio.timeout(seconds):
                status, asked_pause, content = await _try(client, url, body, headers(), extensions or {})
        except TimeoutError:
            problem = f"no answer within {seconds:g} seconds"
        except httpx.TransportError as error:
            problem = f"{type(error).__name__}: {error}"[:300]
        else:
            if status < 300:
                return _json(content)
            problem = f"status {status}"
            if status != 429 and status < 500:
                raise RequestRefusedError(f"{problem}: {content[:300].decode(errors='replace')}")
            pause = max(pause, asked_pause)
        if attempt < retries:
            await asyncio.sleep(min(pause, LONGEST_PAUSE))
    raise AnswerError(f"{problem}, in {retries + 1} tries")


async def _try(
    client: httpx.AsyncClient, url: httpx.URL, body: bytes, headers: Mapping[str, str], extensions: Mapping[str, Any]
) -> tuple[int, float, bytes]:
    """Return status, the pause in seconds that the service asks for, and the content, which is bounded."""
    async with client.stream("POST", url, content=body, headers=headers, extensions=dict(extensions)) as answer:
        content = b""
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > MOST_ANSWER:
                raise AnswerError(f"the answer has more than {MOST_ANSWER} bytes")
        text = answer.headers.get("Retry-After", "")
        return answer.status_code, float(text) if text.isdecimal() else 0.0, content


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the answer is not JSON: {error}") from None
