"""Refusal of unknown query parameters: a misspelt filter must not return everything."""

from collections.abc import Iterator
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api import openai
from calibrl.schemas.field_names import similar_names
from jobs.errors import FieldError, Invalid

METADATA = "metadata"  # begins the names of filters of OpenAI's client; the endpoint checks them
_of_endpoints: dict[Any, frozenset[str]] = {}  # names of the parameters; routes cannot be keys


async def known_parameters(request: Request) -> None:
    """Check the names of a request's query parameters.

    Raises:
        Invalid: the endpoint does not have a parameter.
    """
    known = _names(request.scope["route"])
    of_openai = openai.speaks(request.url.path)
    unknown = [
        name for name in request.query_params if name not in known and not (of_openai and name.startswith(METADATA))
    ]
    if unknown:
        faults = (FieldError(name[:100], _message(name, known)) for name in dict.fromkeys(unknown))
        raise Invalid("The address has unknown parameters.", tuple(faults))


def _message(name: str, known: frozenset[str]) -> str:
    if similar := similar_names(name, sorted(known)):
        return f"Unknown parameter: did you mean {' or '.join(similar)}?"
    return f"Unknown parameter: the parameters are {', '.join(sorted(known))}" if known else "Unknown parameter"


def _names(route: APIRoute) -> frozenset[str]:
    if route.endpoint not in _of_endpoints:
        _of_endpoints[route.endpoint] = frozenset(_names_of(route.dependant))
    return _of_endpoints[route.endpoint]


def _names_of(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from (one.alias or name for name, one in model.model_fields.items())
        else:
            yield field.alias
    for inner in dependant.dependencies:
        yield from _names_of(inner)
