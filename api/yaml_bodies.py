"""Bodies in YAML, such as the file of a spec: they are read as the JSON that they stand for."""

import json
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from calibrl.schemas.yaml_text import YamlError, parsed_yaml

YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
MOST_BYTES = 100_000  # one to two seconds of a CPU; larger bodies must be JSON
UPLOADING = ("/v1/datasets/upload", "/v1/files")  # whose bodies are data
_PARSING = CapacityLimiter(1)  # bodies that are parsed at the same time: the others wait, and the CPU stays free


class YamlBodies:
    """Turns bodies of the type application/yaml into JSON before the routes see them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_parsed(scope):
            await self._app(scope, receive, send)
            return
        try:
            text = await Request(scope, receive).body()
            content = await to_thread.run_sync(_as_json, text, limiter=_PARSING)
        except (YamlError, UnicodeDecodeError, RecursionError) as error:
            await problem(scope, 400, f"The body is not YAML: {_fault(error)}.")(scope, receive, send)
        except ClientDisconnect:
            await problem(scope, 400, "The body is incomplete: the client disconnected.")(scope, receive, send)
        except HTTPException as error:
            await problem(scope, error.status_code, error.detail)(scope, receive, send)
        else:
            await self._app(_of_json(scope, len(content)), _replayed(content, receive), send)


def _is_parsed(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"].endswith(UPLOADING):
        return False
    headers = Headers(scope=scope)
    return headers.get("content-type", "").partition(";")[0].strip().lower() in YAML


def _as_json(text: bytes) -> bytes:
    if len(text) > MOST_BYTES:
        raise HTTPException(413, f"A body in YAML can have at most {MOST_BYTES:,} bytes: send JSON.")
    value: Any = parsed_yaml(text.decode(), aliases=False)
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise YamlError(
            "", "JSON has no form for a value: a set, a date, bytes or a number that is too large"
        ) from error


def _fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)


def _of_json(scope: Scope, length: int) -> Scope:
    headers = MutableHeaders(raw=list(scope["headers"]))
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(length)
    del headers["Transfer-Encoding"]
    return {**scope, "headers": headers.raw}


def _replayed(content: bytes, receive: Receive) -> Receive:
    sent = False

    async def receive_content() -> Message:
        nonlocal sent
        if sent:
            return await receive()  # the end of the connection
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    return receive_content
