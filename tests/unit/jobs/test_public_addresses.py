"""Public addresses, and names whose lookup takes too long."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from calibrl_core.host import public_addresses as core
from jobs.settings import get_settings
from jobs.webhooks import public_addresses
from tests.support.waiting import LIMIT_SECONDS


@pytest.fixture(autouse=True)
def public_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CALIBRL_WEBHOOKS_TO_PRIVATE", raising=False)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5",
        "127.0.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:10.0.0.5",
        "::ffff:0:7f00:1",
        "::ffff:0:808:808",
        "64:ff9b::a00:5",
        "64:ff9b::7f00:1",
        "64:ff9b::c058:6301",
        "64:ff9b:1::808:808",
        "2002:a00:5::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00::1",
        "ff0e::1",
    ],
)
def test_internal_addresses_are_not_public(address: str) -> None:
    assert not core.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::1"])
def test_internet_addresses_are_public(address: str) -> None:
    assert core.is_public(address)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that were asked for; none is found before the test ends."""
    answered, asked = threading.Event(), list[str]()

    def hang(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answered.wait(LIMIT_SECONDS)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(public_addresses, "LOOKUP_SECONDS", 0.2)
    yield asked
    answered.set()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join()


def test_a_name_that_is_not_found_in_time_is_refused(hanging: list[str]) -> None:
    began = time.monotonic()
    problem = public_addresses.problem("https://slow.example/hook")
    assert problem is not None and "no answer" in problem and time.monotonic() - began < 5


def test_the_number_of_hanging_name_lookups_is_limited(hanging: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_free", threading.BoundedSemaphore(1))
    problems = [public_addresses.problem(f"https://{name}.example/") for name in ("one", "two")]
    assert hanging == ["one.example"] and "too many" in str(problems[1])
