"""Screenshots of every page with the jobs of a running stack, in light and dark, in build/screenshots. Those that the
docs show are copied to docs/screenshots.

calibrl up --data DATA &
python -m tests.e2e.guide_runs DATA       # once: the runs on the screenshots; wait for their end
python -m tests.e2e.screenshots DATA
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.progress import track

from calibrl.client import Client
from calibrl.client.address import read_stack
from tests.e2e.conftest import FLAGS, SETTLED

ROOT = Path(__file__).parents[2]
SHOWN = ROOT / "docs" / "screenshots"
WIDE, PHONE = 1300, 390  # pixels
# The sign-in page is not a Streamlit page.
READY = f"() => document.querySelector('main h1') && !document.querySelector('[data-testid=stApp]') || ({SETTLED})()"
# The window is made as high as the page, so that one screenshot shows all of it.
WHOLE = "() => (document.querySelector('[data-testid=stMain]') || document.documentElement).scrollHeight"
HIGHEST = 2400  # pixels
README_HEIGHT = 1060  # pixels of the README's picture, the upper part of a screenshot


def pages(client: Client) -> Iterator[tuple[str, str]]:
    """Return name and page of every screenshot."""
    ids = {job.name: job.id for job in reversed(client.jobs(limit=100).data)}
    run = f"job?id={ids['digits-calibrl']}"
    for panel in ("Overview", "Exploration", "Map", "Rollouts", "Health", "System", "Log", "Files", "Spec"):
        yield panel.lower(), f"{run}&panel={panel}"
    yield "expert", f"{run}&panel=Expert+mismatch"
    yield "collapsed-exploration", f"job?id={ids['collapsed']}&panel=Exploration"
    yield "collapsed-health", f"job?id={ids['collapsed']}&panel=Health"
    yield "exploded-exploration", f"job?id={ids['exploded']}&panel=Exploration"
    yield "exploded-health", f"job?id={ids['exploded']}&panel=Health"
    yield "far-expert", f"job?id={ids['far-expert']}&panel=Expert+mismatch"
    yield "results", f"job?id={ids['digits-before-after']}&panel=Results"
    yield "jobs", ""
    yield "compare", f"compare?jobs={ids['digits-calibrl']},{ids['digits-grpo']}"
    for page in ("new", "queue", "evaluations", "studies", "data", "settings", "signin"):
        yield {"new": "new-job", "data": "data-sets"}.get(page, page), page
    yield "evaluations-compare", f"evaluations?view=Compare&jobs={ids['digits-before-after']}"
    yield "evaluations-replay", "evaluations?view=Re-score"
    for dataset in client.datasets().data[:1]:
        yield "data-set", f"data?id={dataset.id}"


def taken(page: Page, url: str, path: Path, width: int) -> None:
    """Take one screenshot when the page is fully drawn."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(url)
    for _ in range(2):  # an element that becomes visible for the first time can be higher than its placeholder
        page.wait_for_function(READY, timeout=60_000)
        page.wait_for_timeout(1000)  # Plotly's own transitions have no event
        page.set_viewport_size({"width": width, "height": min(max(page.evaluate(WHOLE), 500), HIGHEST)})
    page.wait_for_timeout(1000)
    page.screenshot(path=path)


def take_all(browser: Browser, address: str, shown: list[tuple[str, str]], folder: Path) -> None:
    """Take all screenshots in both themes; a job's overview and the list of jobs also at phone size."""
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for theme in themes:
        context = browser.new_context(base_url=address, color_scheme=theme)
        page = context.new_page()
        page.goto(f"{address}&next=/signin")
        origin = address.partition("/signin")[0]
        for name, path in track(shown, description=theme):
            taken(page, f"{origin}/{path}", folder / f"{name}-{theme}.png", WIDE)
            if name in ("overview", "jobs"):
                taken(page, f"{origin}/{path}", folder / f"{name}-phone-{theme}.png", PHONE)
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "screenshots")
    options = parser.parse_args()
    running = read_stack(options.data_dir)
    if running is None or running.dashboard_url is None:
        raise SystemExit(f"no stack with a dashboard runs on {options.data_dir}")
    options.folder.mkdir(parents=True, exist_ok=True)
    with Client(running.api_url, running.api_key) as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=FLAGS)
        take_all(browser, running.dashboard_url, list(pages(client)), options.folder)
    with Image.open(options.folder / "expert-light.png") as whole:
        whole.crop((0, 0, WIDE, README_HEIGHT)).save(options.folder / "job.png", optimize=True)
    for picture in SHOWN.glob("*.png"):
        shutil.copy(options.folder / picture.name, picture)


if __name__ == "__main__":
    main()
