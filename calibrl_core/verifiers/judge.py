"""Reward of a model that judges: a score by a rubric, or a label, from an endpoint with OpenAI's chat interface."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import httpx
from pydantic import Field, model_validator

from calibrl_core.settings.base import StrictSettings
from calibrl_core.verifiers.base import Deferred, Verdict
from calibrl_core.verifiers.remote import (
    AnswerError,
    RemoteVerifier,
    RequestRefusedError,
    ask_each,
    endpoint_headers,
    post,
)
from calibrl_core.verifiers.reward_input import RewardInput, image_name
from calibrl_core.verifiers.services import Endpoint, Services
from calibrl_core.verifiers.string_check import Template
from calibrl_core.verifiers.templates import fill, names_truth

TYPES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
_OBJECT = re.compile(r"\{[^{}]*\}")
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class MessagePart(StrictSettings):
    """A text or an image of a message, with placeholders."""

    type: Literal["text", "image"]
    content: Template = Field(description="The text; or the URL or data URL of the image.")


class JudgeMessage(StrictSettings):
    """A message to the judge."""

    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: Template | Annotated[tuple[MessagePart, ...], Field(max_length=32)] = Field(
        description="Text with placeholders, or texts and images."
    )


class JudgeReward(RemoteVerifier):
    """Score or label of a model. The judge is asked for JSON by a schema; if the endpoint refuses schemas, the JSON is
    read from its text. A score outside `range`, or an unknown label, is a missing verdict.
    """

    type: Literal["judge"] = "judge"
    name: str = Field("judge", pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name in metrics.")
    endpoint: str = Field(min_length=1, max_length=100, description="Name of an endpoint that an administrator set.")
    model: str = Field(min_length=1, max_length=200, description="Name of the model at the endpoint.")
    messages: tuple[JudgeMessage, ...] = Field(
        min_length=1,
        max_length=32,
        description="Messages to the judge, with the rubric. The form of its answer is added to the last one.",
    )
    images: bool = Field(True, description="Send the images of the prompt with the last message.")
    range: tuple[float, float] = Field(
        (0.0, 1.0), description="Lowest and highest score. The run scales it to 0 to 1. Without effect for labels."
    )
    labels: tuple[Label, ...] | None = Field(
        None, min_length=2, max_length=64, description="Labels that the judge chooses from. None: it gives a score."
    )
    passing_labels: tuple[Label, ...] = Field(
        (), max_length=100, description="Labels that score 1; all others score 0."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Temperature of the judge's sampling.")
    top_p: float = Field(1.0, gt=0, le=1, description="The judge samples from this share of the probability.")
    seed: int | None = Field(None, ge=0, lt=2**31, description="Seed of the judge's sampling. None: not sent.")
    reasoning_effort: Effort | None = Field(None, description="Effort of a judge that reasons. None: not sent.")
    max_completion_tokens: int = Field(1024, ge=1, le=65_536, description="Maximum tokens of the judge's answer.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError("range: the first number must be below the second one")
        if unknown := {*self.passing_labels} - {*(self.labels or ())}:
            raise ValueError(f"passing_labels: {', '.join(sorted(unknown))} is not in labels")
        if self.labels and not self.passing_labels:
            raise ValueError("passing_labels: name the labels that score 1")
        return self

    @property
    def label(self) -> str:
        return self.name

    @property
    def reads_truth(self) -> bool:
        return any(names_truth(text) for message in self.messages for text in _templates(message.content))

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.labels else self.range

    def settle(self, seen: RewardInput) -> Deferred:
        messages = [{"role": one.role, "content": _filled(one.content, seen)} for one in self.messages]
        images = tuple(seen.images) if self.images else ()
        text = json.dumps({"messages": messages, "images": [image_name(image) for image in images]})
        return Deferred(text, "", images)

    def check_allowed(self, services: Services) -> None:
        services.endpoint(self.endpoint)

    async def ask(self, requests: Sequence[Deferred], services: Services) -> list[Verdict]:
        endpoint = services.endpoint(self.endpoint)
        plain: list[bool] = []  # has an entry once the endpoint has refused a schema

        async def one(part: Sequence[Deferred]) -> list[Verdict]:
            (request,) = part
            if not plain:
                try:
                    return [self._verdict(await self._post(client, endpoint, request, self._form()))]
                except RequestRefusedError as error:
                    if "response_format" not in str(error) and "schema" not in str(error):
                        raise
                    plain.append(True)
            return [self._verdict(await self._post(client, endpoint, request, {}))]

        async with httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client:
            return await ask_each(one, requests, 1, endpoint.requests_at_once)

    async def _post(
        self, client: httpx.AsyncClient, endpoint: Endpoint, request: Deferred, form: Mapping[str, Any]
    ) -> Any:
        body = {
            "model": self.model,
            "messages": self._messages(request),
            "temperature": self.temperature,
            "top_p": self.top_p,
            **({} if self.seed is None else {"seed": self.seed}),
            **({} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}),
            "max_completion_tokens": self.max_completion_tokens,
            **form,
        }
        headers = endpoint_headers(endpoint)
        url = httpx.URL(f"{endpoint.url.rstrip('/')}/chat/completions")
        seconds, retries = self.time_limit_seconds, self.retries
        return await post(client, url, json.dumps(body).encode(), lambda: headers, seconds=seconds, retries=retries)

    def _messages(self, request: Deferred) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = json.loads(request.text)["messages"]
        parts = messages[-1]["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        shown = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in request.images]
        asked = f'Answer with JSON: {{"explanation": "...", {self._asks_for()}}}'
        if not shown and all(part["type"] == "text" for part in parts):  # models of texts may take texts only
            messages[-1]["content"] = "\n\n".join([*(part["text"] for part in parts), asked])
        else:
            messages[-1]["content"] = [*shown, *parts, {"type": "text", "text": asked}]
        return messages

    def _asks_for(self) -> str:
        if self.labels:
            return f'"label": one of {json.dumps(self.labels, ensure_ascii=False)}'
        return f'"score": a number from {self.range[0]:g} to {self.range[1]:g}'

    def _form(self) -> dict[str, Any]:
        """Return the setting of the request that asks for JSON by a schema."""
        name = "label" if self.labels else "score"
        value = {"type": "string", "enum": list(self.labels)} if self.labels else {"type": "number"}
        schema = {
            "type": "object",
            "properties": {"explanation": {"type": "string"}, name: value},
            "required": ["explanation", name],
            "additionalProperties": False,
        }
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": schema, "strict": True},
            }
        }

    def _verdict(self, answer: Any) -> Verdict:
        """Return the verdict in an answer of the endpoint, which can be a missing one.

        Raises:
            AnswerError: the answer is no answer of a model.
        """
        tokens, refusal = _tokens(answer), _refusal(answer)
        if refusal is not None:
            return Verdict(0.0, f"the judge refused: {refusal[:200]!r}", tokens=tokens, refused=True)
        try:
            return Verdict(self._read(answer), tokens=tokens)
        except AnswerError as error:
            if error.of_service:
                raise
            return Verdict(0.0, str(error), tokens=tokens)

    def _read(self, answer: Any) -> float:
        """Return the score in an answer of the endpoint.

        Raises:
            AnswerError: it has none.
        """
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
        except (LookupError, TypeError):
            raise AnswerError("the endpoint's answer has no choices[0].message.content") from None
        value = _last_object(text).get("label" if self.labels else "score")
        if self.labels and value in self.labels:
            return float(value in self.passing_labels)
        if not self.labels and isinstance(value, int | float) and not isinstance(value, bool):
            if self.range[0] <= value <= self.range[1]:
                return float(value)
            raise AnswerError(f"the judge gave {value:g}, outside its range", of_service=False)
        if choice.get("finish_reason") == "length":
            raise AnswerError("the judge's answer was cut: raise max_completion_tokens", of_service=False)
        raise AnswerError(f"the judge gave no {'label' if self.labels else 'score'}: {text[-200:]!r}", of_service=False)


def _templates(content: str | tuple[MessagePart, ...]) -> list[str]:
    return [content] if isinstance(content, str) else [part.content for part in content]


def _filled(content: str | tuple[MessagePart, ...], seen: RewardInput) -> Any:
    if isinstance(content, str):
        return fill(content, seen)
    return [
        {"type": "text", "text": fill(part.content, seen)}
        if part.type == "text"
        else {"type": "image_url", "image_url": {"url": fill(part.content, seen)}}
        for part in content
    ]


def _tokens(answer: Any) -> int:
    """Return the tokens of prompt and answer that an endpoint counted; 0 if it does not say."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and total > 0 else 0


def _refusal(answer: Any) -> str | None:
    """Return the words with which a model refused to answer, or None."""
    try:
        choice = answer["choices"][0]
        refusal = choice["message"].get("refusal")
    except (LookupError, TypeError, AttributeError):
        return None
    if isinstance(refusal, str) and refusal:
        return refusal
    return "content filter" if choice.get("finish_reason") == "content_filter" else None


def _last_object(text: str) -> dict[str, Any]:
    """Return the JSON object that is the text, or the last flat one in it; an empty one without any."""
    for part in (text, *reversed(_OBJECT.findall(text))):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}


def data_url(image: bytes) -> str:
    """Return an encoded image as a data URL."""
    kind = next((name for start, name in TYPES.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
