"""Fixtures that several files here share."""

from collections.abc import Iterator

import httpx
import pytest

from calibrl.client import Client
from jobs.settings import get_settings
from tests.support import API_KEY
from tests.support.rest import serving


@pytest.fixture
def http(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """The API over real HTTP, asked with the service's own key. It does not sweep: tests do that when they need to."""
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "3600")
    get_settings.cache_clear()
    with serving() as client:
        yield client


@pytest.fixture
def client(http: httpx.Client) -> Iterator[Client]:
    """Return the Python client of that API. Files that send HTTP themselves define their own fixture of this name."""
    with Client(str(http.base_url), API_KEY) as client:
        yield client
