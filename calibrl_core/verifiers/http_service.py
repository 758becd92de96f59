"""Reward of a service of the team's own, over HTTP: batches of signed requests."""

import asyncio
import base64
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import httpx
from pydantic import Field

from calibrl_core.host.public_addresses import Refused, is_public, look_up
from calibrl_core.host.signatures import signed_headers
from calibrl_core.verifiers.base import Deferred, InputVerifier, Verdict
from calibrl_core.verifiers.remote import AnswerError, RemoteVerifier, ask_each, given, post
from calibrl_core.verifiers.reward_input import image_name
from calibrl_core.verifiers.services import RewardServiceError, Services

LOOKUP_SECONDS = 5.0
AT_ONCE = 4  # requests at the same time per trainer process


class HttpReward(RemoteVerifier, InputVerifier):
    """Score of a service, 0.0 to 1.0. Each request is a POST of a batch, signed according to Standard Webhooks with the
    project's secret. The service must be allowed by an administrator.
    """

    type: Literal["http"] = "http"
    name: str = Field("http", pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name in metrics.")
    url: str = Field(pattern=r"^https?://\S+$", max_length=1024, description="URL of the service.")
    batch_size: int = Field(64, ge=1, le=1024, description="Maximum completions per request.")

    @property
    def label(self) -> str:
        return self.name

    def check_allowed(self, services: Services) -> None:
        services.is_private(self.url)
        if services.secret is None:
            raise RewardServiceError("there is no secret to sign with: an administrator sets it in reward_secrets")

    async def ask(self, requests: Sequence[Deferred], services: Services) -> list[Verdict]:
        url = httpx.URL(self.url)
        try:
            address = await asyncio.to_thread(_address, url, private_too=services.is_private(self.url))
        except (Refused, RewardServiceError) as error:
            return [Verdict(0.0, str(error))] * len(requests)
        async with httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client:
            ask = partial(self._scores, client, url, address, services)
            return await ask_each(ask, requests, self.batch_size, AT_ONCE)

    async def _scores(
        self, client: httpx.AsyncClient, url: httpx.URL, address: str, services: Services, requests: Sequence[Deferred]
    ) -> list[Verdict]:
        assert services.secret is not None
        body, secret, id = _body(requests), services.secret.get_secret_value(), str(uuid.uuid4())
        own = {"Host": url.netloc.decode(), "User-Agent": "CalibRL-rewards/1"}
        answer = await post(
            client,
            url.copy_with(host=address),  # the address that was checked: a second lookup could return another one
            body,
            lambda: own | signed_headers(secret, id, body),
            seconds=self.time_limit_seconds,
            retries=self.retries,
            extensions={"sni_hostname": url.host},
        )
        return list(map(given, _scores(answer, len(requests))))


def _address(url: httpx.URL, *, private_too: bool) -> str:
    """Return an address of the URL's host.

    Raises:
        Refused: there is none, or one that is not public where it must be.
    """
    addresses = look_up(url.host, url.port or (443 if url.scheme == "https" else 80), LOOKUP_SECONDS)
    if not private_too and not all(is_public(address) for address in addresses):
        raise Refused(f"{url.host} has an address that is not public; an administrator can list it in reward_hosts")
    return addresses[0]


def _body(requests: Sequence[Deferred]) -> bytes:
    """Return the JSON of a batch. Completions of one prompt share its images."""
    images = {image_name(image): image for request in requests for image in request.images}
    samples = [json.loads(request.text) | {"truth": request.truth} for request in requests]
    encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
    return json.dumps({"samples": samples, "images": encoded}).encode()


def _scores(answer: Any, count: int) -> list[float | None]:
    """Return the scores of a response; None for a sample that the service cannot judge."""
    scores = answer.get("scores") if isinstance(answer, Mapping) else None
    if not isinstance(scores, list) or len(scores) != count:
        raise AnswerError(f'the answer must be {{"scores": [...]}} with {count} numbers')
    for place, score in enumerate(scores):
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (number and math.isfinite(score) and 0 <= score <= 1):
            raise AnswerError(f"scores.{place} is {json.dumps(score)[:50]}; it must be a number from 0 to 1, or null")
    return scores
