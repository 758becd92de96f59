"""Reward for texts of similar meaning: the cosine of their embeddings, from an endpoint with OpenAI's interface."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
from pydantic import Field

from calibrl_core.verifiers.base import Deferred, Verdict
from calibrl_core.verifiers.remote import AnswerError, RemoteVerifier, ask_each, endpoint_headers, given, post
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.services import RewardServiceError, Services
from calibrl_core.verifiers.string_check import Template
from calibrl_core.verifiers.templates import fill, names_truth

PAIRS = 32  # pairs of texts per request


class EmbeddingReward(RemoteVerifier):
    """Cosine of the embeddings of two texts; 0.0 if it is negative, or if a text is empty."""

    type: Literal["embedding"] = "embedding"
    name: str = Field(
        "embedding", pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name in metrics."
    )
    endpoint: str = Field(
        "embeddings", min_length=1, max_length=100, description="Name of an endpoint that an administrator set."
    )
    model: str | None = Field(
        None, min_length=1, max_length=200, description="Name of the model at the endpoint. None: that of the endpoint."
    )
    input: Template = Field("{{ sample.output_text }}", description="Text to check, with placeholders.")
    reference: Template = Field("{{ truth }}", description="Text to compare with, with placeholders.")

    @property
    def label(self) -> str:
        return self.name

    @property
    def reads_truth(self) -> bool:
        return names_truth(self.input, self.reference)

    def settle(self, seen: RewardInput) -> float | Deferred:
        text, reference = fill(self.input, seen).strip(), fill(self.reference, seen).strip()
        return Deferred(text, reference) if text and reference else 0.0

    def check_allowed(self, services: Services) -> None:
        endpoint = services.endpoint(self.endpoint)
        if self.model is None and endpoint.model is None:
            raise RewardServiceError(f"the endpoint {self.endpoint!r} has no model of its own: set model")

    async def ask(self, requests: Sequence[Deferred], services: Services) -> list[Verdict]:
        endpoint = services.endpoint(self.endpoint)
        url, headers = httpx.URL(f"{endpoint.url.rstrip('/')}/embeddings"), endpoint_headers(endpoint)

        async def of_pairs(pairs: Sequence[Deferred]) -> list[Verdict]:
            texts = [text for pair in pairs for text in (pair.text, pair.truth)]
            body = json.dumps({"model": self.model or endpoint.model, "input": texts}).encode()
            seconds, retries = self.time_limit_seconds, self.retries
            answer = await post(client, url, body, lambda: headers, seconds=seconds, retries=retries)
            found = _vectors(answer, len(texts))
            return [given(_cosine(*each)) for each in zip(found[::2], found[1::2], strict=True)]

        async with httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client:
            return await ask_each(of_pairs, requests, PAIRS, endpoint.requests_at_once)


def _vectors(answer: Any, count: int) -> list[list[float]]:
    """Return the embeddings of a response, in the order of their index."""
    rows = answer.get("data") if isinstance(answer, Mapping) else None
    try:
        vectors = [row["embedding"] for row in sorted(rows or (), key=lambda row: row["index"])]
        valid = all(math.isfinite(sum(vector)) and len(vector) == len(vectors[0]) for vector in vectors)
    except (TypeError, LookupError):
        valid, vectors = False, []
    if not valid or len(vectors) != count:
        raise AnswerError(f"the answer must have {count} embeddings of one length")
    return vectors


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    lengths = math.hypot(*first) * math.hypot(*second)
    dot = math.fsum(a * b for a, b in zip(first, second, strict=True))
    return min(1.0, max(0.0, dot / lengths)) if lengths else 0.0
