"""JSON bodies: bounded in how many values they hold, and checked off the event loop where they are not small.

Pydantic makes an error for each bad item, also of a list that is too long, so the work grows with the values of a body
and not with the limits of its fields. The limit on values bounds it.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from jobs.errors import FieldError, Invalid

MOST_VALUES = 5_000  # numbers, texts, lists and mappings of one body, nested ones included
SMALL_BYTES = 8_192  # checked on the event loop: a thread costs more than that many bytes


class BoundedRoute(APIRoute):
    """A route that takes a JSON body; the route class of every router that has some."""

    most_values = MOST_VALUES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint, behind the check of its body."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handled(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip().endswith("json"):
                body = await read_body(request)
                if len(body) <= SMALL_BYTES:
                    _count_values(body, self.most_values)
                else:
                    await run_in_threadpool(self._check, body)
            return await handle(request)

        return handled

    def _check(self, body: bytes) -> None:
        """Validate a body before the endpoint does; the endpoint then finds no errors.

        Raises:
            Invalid: the body has too many values.
            RequestValidationError: fields of the body are invalid.
        """
        value = _count_values(body, self.most_values)
        if value is not None and self.body_field is not None:
            _, errors = self.body_field.validate(value, {}, loc=("body",))
            if errors:
                raise RequestValidationError(errors, body=value)


async def read_body(request: Request) -> bytes:
    """Return the whole body, which is read once and cached.

    Raises:
        HTTPException: the client disconnected before the end of the body (400).
    """
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "The body is incomplete: the client disconnected.") from None


def _count_values(body: bytes, most: int) -> Any:
    """Return the value of a JSON body; None if the body is not JSON: the endpoint then reports the error.

    Raises:
        Invalid: the body has more than `most` values.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    open_, count = [value], 0
    while open_:
        inner = open_.pop()
        count += 1
        if isinstance(inner, dict | list):
            open_.extend(inner.values() if isinstance(inner, dict) else inner)
        if count + len(open_) > most:
            fault = FieldError("body", f"holds more than {most:,} values; rows belong in a dataset's file")
            raise Invalid("The body is too large.", (fault,))
    return value
