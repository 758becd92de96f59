"""Fixtures that several files here share."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from calibrl.client import Client
from jobs.settings import get_settings
from tests.support import API_KEY, ROOT, job_steps
from tests.support.api_users import ApiUsers
from tests.support.processes import processes_with
from tests.support.rest import serving
from tests.support.worker import wake
from tests.support.worker_jobs import QUICK


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


@pytest.fixture
def admin(database: str) -> Iterator[httpx.Client]:
    """The API over real HTTP, asked with the service's own key."""
    with serving() as client:
        yield client


@pytest.fixture
def users(admin: httpx.Client) -> Iterator[ApiUsers]:
    """Users of that API, who ask with keys of their own."""
    with ApiUsers(admin) as users:
        yield users


@pytest.fixture
def in_background(database: str) -> Iterator[Callable[[], Future[None]]]:
    """Yield a function that runs `wake` in a thread; its trainers end with the test."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda: pool.submit(wake)
        for pid in processes_with(get_settings().data_dir / "runs"):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def quick_worker(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set short times and the fake trainer for the workers of a test, and register the machine `tester`."""
    monkeypatch.chdir(ROOT)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    job_steps.machine("tester", cpu_slots=1)  # for what runs in the test's own process; no heartbeat thread renews it
    job_steps.run("UPDATE workers SET heartbeat_at = now() + interval '1 hour'")
