"""Size limits of bodies: every list, mapping and text of the contract has one, and so has the whole body."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from api import bodies, errors, yaml_bodies
from api.bodies import MOST_VALUES, BoundedRoute
from api.main import app

FREE_FORMATS = ("uuid", "date-time")  # of texts whose form limits their length
Schema = dict[str, Any]


def without_limit(schema: Schema, known: Schema, at: str, seen: set[str]) -> Iterator[str]:
    """Yield the fields of a JSON schema that may be of any length."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            seen.add(name)
            yield from without_limit(known[name], known, name, seen)
        return
    for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from without_limit(inner, known, at, seen)
    kind = schema.get("type")
    limited = schema.keys() & {"maxLength", "enum", "const"} or schema.get("format") in FREE_FORMATS
    if kind == "string" and not limited:
        yield f"{at}: text"
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{at}: list"
        for inner in (*schema.get("prefixItems", ()), schema.get("items", {})):
            yield from without_limit(inner, known, f"{at}[]", seen)
    for name, inner in schema.get("properties", {}).items():
        yield from without_limit(inner, known, f"{at}.{name}", seen)
    if kind == "object" and not schema.keys() & {"properties", "maxProperties"}:
        yield f"{at}: mapping"
    for inner in (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()):
        if isinstance(inner, dict):
            yield from without_limit(inner, known, f"{at}{{}}", seen)


def test_every_field_of_every_json_body_has_a_limit() -> None:
    document = app.openapi()
    found, seen, bodies_seen = list[str](), set[str](), 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                if kind == "application/json":
                    bodies_seen += 1
                    at = f"{method} {path}"
                    found += without_limit(content["schema"], document["components"]["schemas"], at, seen)
    assert bodies_seen >= 10 and "TrainSpec" in seen
    assert found == []


def test_the_walk_finds_fields_without_a_limit() -> None:
    class Inner(BaseModel):
        text: str
        fine: str = Field(max_length=3)

    class Outer(BaseModel):
        inner: list[Inner] | None
        mapping: dict[str, int]

    schema = Outer.model_json_schema()
    found = set(without_limit(schema, schema["$defs"], "body", set()))
    assert found == {"body.inner: list", "Inner.text: text", "body.mapping: mapping"}


def routes(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes(route.original_router)


def test_every_route_with_a_body_checks_it_first() -> None:
    with_body = [route for route in routes(app) if route.body_field is not None]
    assert len(with_body) >= 10
    assert [route.path for route in with_body if not isinstance(route, BoundedRoute)] == []


class Numbers(BaseModel):
    numbers: tuple[int, ...] = Field(max_length=10)


@pytest.fixture
def threads() -> list[int]:
    """The threads in which a body was validated: the event loop's, and others."""
    return []


@pytest.fixture
def client(threads: list[int], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    small = FastAPI()
    small.router.route_class = BoundedRoute
    count = bodies._count_values

    def counted(body: bytes, most: int) -> Any:
        threads.append(threading.get_ident())
        return count(body, most)

    monkeypatch.setattr(bodies, "_count_values", counted)

    @small.post("/numbers")
    async def take(numbers: Numbers) -> int:
        threads.append(threading.get_ident())
        return len(numbers.numbers)

    @small.middleware("http")
    async def with_id(request: Any, call: Any) -> Any:
        request.scope["state"]["request_id"] = "r"
        return await call(request)

    errors.install(small)
    return TestClient(small)


def test_a_body_of_too_many_values_is_one_error(client: TestClient) -> None:
    answer = client.post("/numbers", json={"numbers": ["x"] * MOST_VALUES})
    assert answer.status_code == 422 and len(answer.content) < 1_000
    assert answer.json()["errors"][0]["message"].startswith("holds more than 5,000 values")


def test_a_hundred_errors_are_listed_and_the_others_counted(client: TestClient) -> None:
    answer = client.post("/numbers", json={"numbers": ["x"] * 300})
    found = answer.json()
    assert len(found["errors"]) == 100 and found["errors"][0]["field"] == "numbers.0"
    assert found["detail"].startswith("300 fields can't be accepted; the first 100")


def test_a_large_body_is_checked_in_another_thread(client: TestClient, threads: list[int]) -> None:
    padding = " " * bodies.SMALL_BYTES
    for text, elsewhere in (('{"numbers": [1, 2]}', False), ('{"numbers": [1, 2]}' + padding, True)):
        threads.clear()
        answer = client.post("/numbers", content=text, headers={"Content-Type": "application/json"})
        assert answer.json() == 2
        checked, loop = threads
        assert (checked != loop) is elsewhere


def test_errors_in_a_large_body_are_named_as_in_a_small_one(client: TestClient) -> None:
    small = client.post("/numbers", json={"numbers": ["x"]}).json()
    text = json.dumps({"numbers": ["x"]}) + " " * bodies.SMALL_BYTES
    large = client.post("/numbers", content=text, headers={"Content-Type": "application/json"}).json()
    assert large == small and large["errors"][0]["field"] == "numbers.0"


def test_one_body_in_yaml_is_parsed_at_a_time() -> None:
    parsed = list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"a: 1", "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        parsed.append(json.loads((await receive())["body"]))

    async def scene() -> int:
        headers = [(b"content-type", b"application/yaml")]
        scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": headers}
        turns = yaml_bodies._PARSING
        async with turns:
            tasks = [asyncio.create_task(yaml_bodies.YamlBodies(inner)(scope, receive, send)) for _ in range(3)]
            async with asyncio.timeout(60):
                while turns.statistics().tasks_waiting < 3:
                    await asyncio.sleep(0)
            waiting = len(parsed)
        await asyncio.gather(*tasks)
        return waiting

    assert (asyncio.run(scene()), parsed) == (0, [{"a": 1}] * 3)
