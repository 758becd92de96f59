"""Ways between pages in headless Chromium: Back, links with filters, an ID in the path, the selection of runs."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from calibrl.client import Client
from calibrl.schemas import Job
from tests.e2e.conftest import SETTLED, end, submit
from tests.support.waiting import eventually

LISTENING = "window.calibrlLinkClicks"
pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def two_jobs(client: Client) -> Iterator[list[Job]]:
    """Two training jobs, cancelled after their first steps."""
    jobs = [submit(client, name) for name in ("first-of-two", "second-of-two")]
    for job in jobs:
        eventually(lambda job=job: client.job(job.id).step > 5)  # type: ignore[misc]
        client.cancel(job.id)
    eventually(lambda: all(client.job(job.id).status.final for job in jobs))
    yield jobs


def test_back_from_a_new_job_keeps_the_form(page: Page, client: Client) -> None:
    page.goto("/new?preset=GRPO")
    page.wait_for_function(SETTLED)
    page.get_by_label("Name", exact=True).fill("kept-name")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(page.get_by_text("name: kept-name")).to_be_visible()
    page.get_by_role("button", name="Submit job").click()
    expect(page.get_by_role("heading", name="kept-name")).to_be_visible()
    expect(page).to_have_title(re.compile("^kept-name · .* · CalibRL$"))
    expect(page.get_by_text(re.compile(r"^[1-9]\d* of \d+ steps")).first).to_be_visible()  # redrawn by itself since
    job = page.url.partition("id=")[2]
    page.go_back()
    expect(page.get_by_text("name: kept-name")).to_be_visible()
    expect(page.get_by_text("type: grpo")).to_be_visible()
    end(client, client.job(job))


def test_back_leads_to_the_panel_before(page: Page, two_jobs: list[Job]) -> None:
    page.goto(f"/job?id={two_jobs[0].id}")
    for panel in ("Health", "Log"):
        page.get_by_role("radio", name=panel, exact=True).click()
        expect(page).to_have_url(re.compile(f"panel={panel}"))
    page.go_back()
    expect(page.get_by_role("radio", name="Health", exact=True)).to_be_checked()
    page.go_back()
    expect(page.get_by_role("radio", name="Overview", exact=True)).to_be_checked()


def test_the_link_to_all_jobs_keeps_the_filters(page: Page, two_jobs: list[Job]) -> None:
    page.goto("/?status=Cancelled")
    page.wait_for_function(LISTENING)
    page.get_by_role("link", name="first-of-two").first.click()
    expect(page.get_by_role("heading", name="first-of-two")).to_be_visible()
    page.wait_for_function(LISTENING)
    page.get_by_role("link", name="All jobs").click()
    expect(page).to_have_url(re.compile(r"/\?status=Cancelled$"))


def test_an_id_in_the_path_opens_its_job(page: Page, two_jobs: list[Job]) -> None:
    page.goto(f"/job/{two_jobs[1].id}")
    expect(page.get_by_role("heading", name="second-of-two")).to_be_visible()


def test_selected_rows_are_compared(page: Page, two_jobs: list[Job]) -> None:
    page.goto("/?list-view=Table&run-filter=of-two")
    page.wait_for_function(SETTLED)
    grid = page.locator("[data-testid=stDataFrame] canvas").first
    expect(grid).to_be_visible()
    box = grid.bounding_box()
    assert box is not None
    for row in (1, 2):  # of 35 pixels, below the header
        page.mouse.click(box["x"] + 17, box["y"] + 35 * row + 17)
        expect(page.get_by_text(f"{row} selected")).to_be_visible()
    page.get_by_role("link", name="Compare (2)").click()
    expect(page.get_by_text("Last and best values")).to_be_visible()
    for job in two_jobs:
        expect(page.get_by_role("link", name=job.name).first).to_be_visible()
