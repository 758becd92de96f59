"""The whole stack with a trainer that needs no torch, and a tab of headless Chromium on its dashboard."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from calibrl.client import Client
from calibrl.schemas import Job, JobStatus
from calibrl.stack.local import LocalStack
from jobs.settings import get_settings
from tests.support.waiting import LIMIT_SECONDS, eventually

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = LIMIT_SECONDS * 1000  # milliseconds
# For a deep link, Streamlit's own page first asks under its path where the server is; the answer is 404.
PROBE = re.compile(r"/\w+/_stcore/(health|host-config)$")
# A page's script has ended, and all its charts are drawn.
SETTLED = """() => document.querySelector('[data-test-script-state=notRunning]')
    && ![...document.querySelectorAll('.live-chart')].some(chart => !chart.data)
    && !document.querySelector('[data-testid=stSkeleton]')"""


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of Debian's Chromium. Without it the tests fail in CI and are skipped elsewhere."""
    path = shutil.which("chromium")
    if path is None:
        say = "Chromium is missing: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(say, pytrace=False)
        pytest.skip(say)
    return path


@pytest.fixture(scope="package")
def stack(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Run the whole service with a trainer without torch, once for this folder, because a start takes 15 CPU seconds.

    Its settings are only in the environment of its processes: other tests of the folder start stacks too.
    """
    with ExitStack() as held:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "CALIBRL_API_URL"):
                patch.delenv(name, raising=False)
            patch.setenv("CALIBRL_TRAINER", "tests.support.fake_trainer")
            patch.chdir(ROOT)
            get_settings.cache_clear()
            running = held.enter_context(LocalStack(tmp_path_factory.mktemp("stack")))
        get_settings.cache_clear()
        yield running


@pytest.fixture(scope="package")
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.api_url, stack.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def training_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Yield a stack with the real trainer and without the dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "CALIBRL_API_URL", "CALIBRL_TRAINER"):
            patch.delenv(name, raising=False)
        patch.setenv("CALIBRL_ALLOWED_ROOTS", str(tmp_path_factory.getbasetemp()))
        get_settings.cache_clear()
        with LocalStack(tmp_path_factory.mktemp("a stack"), dashboard=False) as stack:
            yield stack
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def training_client(training_stack: LocalStack) -> Iterator[Client]:
    with Client(training_stack.api_url, training_stack.api_key) as client:
        yield client


def ended(client: Client, job: Job) -> Job:
    """Return a job that has succeeded."""
    now = client.wait(job.id, LIMIT_SECONDS)
    assert now.status is JobStatus.SUCCEEDED, now.message
    return now


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, stack: LocalStack) -> Iterator[Page]:
    """Yield a tab on the dashboard. Check at its end that its console has no error, and that no request left the
    service."""
    context = browser.new_context(base_url=stack.dashboard_url, viewport={"width": 1300, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(f"{stack.dashboard_url}&next=/signin")  # the token's cookie, and no page of Streamlit yet
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(f"{message.text} {message.location}") if _is_error(message) else None
    )
    yield page
    context.close()
    assert errors == []
    assert [url for url in asked if leaves(url, str(stack.dashboard_url))] == []


def leaves(url: str, service: str) -> bool:
    """Return true if an address is neither of the service nor a part of the page."""
    address = urlsplit(url)
    return address.scheme not in ("data", "blob", "about") and address.netloc != urlsplit(service).netloc


def _is_error(message: Any) -> bool:
    return message.type == "error" and not PROBE.search(message.location.get("url", ""))


def zoom(page: Page, chart: str) -> None:
    """Drag over the left half of a chart."""
    area = page.locator(f".st-key-{chart} .nsewdrag")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 10, steps=5)
    page.mouse.up()


def submit(client: Client, name: str) -> Job:
    """Submit a job that runs for minutes unless it is stopped: a step takes a tenth of a second."""
    return client.submit(
        {
            "kind": "train",
            "name": name,
            "model": {"builtin": "tiny-vlm"},
            "data": {"builtin": "digits"},
            "algorithm": {"type": "calibrl"},
            "rollout": {"group_size": 4},
            "samples": {"every_steps": 5},
            "prompts_per_step": 100,
            "steps": 3000,
        }
    )


def end(client: Client, job: Job) -> None:
    if not client.job(job.id).status.final:
        client.cancel(job.id)
    eventually(lambda: client.job(job.id).status.final)


def evaluated(client: Client, name: str, *seeds: int) -> Job:
    """Run an evaluation to its end; the models' seeds determine their accuracies."""
    spec = {
        "kind": "evaluate",
        "name": name,
        "models": [{"builtin": "tiny-vlm", "seed": seed} for seed in seeds],
        "data": [{"builtin": "digits", "split": "test"}],
    }
    return client.submit(spec).wait(LIMIT_SECONDS)


@pytest.fixture
def job(client: Client) -> Iterator[Job]:
    """Run a job for minutes; cancel it at the end of the test."""
    job = submit(client, "watched-job")
    yield job
    end(client, job)
