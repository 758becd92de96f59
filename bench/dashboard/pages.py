"""Time until headless Chromium has drawn the main content of a page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from playwright.sync_api import Browser, BrowserContext, sync_playwright

from bench.dashboard.viewers import session_cookies

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PATIENCE = 120_000  # milliseconds
PLOTLY = ".js-plotly-plot .scatterlayer .trace path.js-line"
TENSORBOARD = "line-chart svg path, line-chart canvas"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium during the block.

    Raises:
        SystemExit: Chromium is not installed.
    """
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def signed_in(browser: Browser, dashboard: str, key: str) -> BrowserContext:
    """Return a fresh context, with nothing cached, that is signed in to the dashboard."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    for name, value in session_cookies(dashboard, key).items():
        context.add_cookies([{"name": name, "value": value, "url": dashboard}])
    return context


def opened(context: BrowserContext, url: str, shows: str) -> float:
    """Return the seconds from a context's first request until an element exists. Closes the context."""
    try:
        page = context.new_page()
        begin = time.perf_counter()
        page.goto(url, wait_until="commit", timeout=PATIENCE)
        page.wait_for_selector(shows, state="attached", timeout=PATIENCE)
        return time.perf_counter() - begin
    finally:
        context.close()


def in_turn(
    fresh: Callable[[], BrowserContext], pages: dict[str, tuple[str, str]], times: int, done: Callable[[], None]
) -> dict[str, float]:
    """Open pages (address, selector of an element) in turn, `times` times; return the median seconds of each page.

    An additional first turn warms up the servers and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(times + 1):
        for name, (url, shows) in pages.items():
            seconds[name].append(opened(fresh(), url, shows))
            done()
    return {name: median(found[1:]) for name, found in seconds.items()}
