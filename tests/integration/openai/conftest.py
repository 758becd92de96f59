"""The official client of OpenAI for the served API."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support import API_KEY
from tests.support.openai_requests import Client
from tests.support.rest import serving


@pytest.fixture
def api(database: str) -> Iterator[httpx.Client]:
    with serving() as client:
        yield client


@pytest.fixture
def client_of(api: httpx.Client) -> Iterator[Client]:
    """Makes OpenAI's client for a key."""
    made: list[OpenAI] = []

    def make(key: str = API_KEY, **options: Any) -> OpenAI:
        made.append(OpenAI(base_url=f"{api.base_url}/v1", api_key=key, max_retries=0, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def client(client_of: Client) -> OpenAI:
    return client_of()
