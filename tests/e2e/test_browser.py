"""The dashboard in headless Chromium, on the whole stack, while a job runs."""

import json
import re

import pytest
from playwright.sync_api import Page, WebSocket, expect

from calibrl.client import Client
from calibrl.schemas import Job, JobStatus
from calibrl.stack.local import LocalStack
from tests.e2e.conftest import end, submit, zoom
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow]

HOSTILE = (
    "<script>window.pwned = 1</script>",
    '<img src="x" onerror="window.pwned = 2">',
    "<b>bold</b> **bold** $x^2$ [link](javascript:alert(1))",
)


def points(page: Page, chart: str) -> int:
    """Return the number of points of a chart's longest line in Plotly."""
    longest = "element => Math.max(...element.data.map(trace => trace.x.length))"
    count: int = page.locator(f".st-key-{chart} .js-plotly-plot").evaluate(longest)
    return count


def more_points(page: Page, chart: str, than: int) -> int:
    """Wait until a chart has more points than before; return their number."""
    page.wait_for_function(
        "([selector, than]) => document.querySelector(selector)?.data?.some(trace => trace.x.length > than)",
        arg=[f".st-key-{chart} .js-plotly-plot", than],
    )
    return points(page, chart)


def x_range(page: Page, chart: str) -> list[float]:
    shown: list[float] = page.locator(f".st-key-{chart} .js-plotly-plot").evaluate("plot => plot.layout.xaxis.range")
    return shown


# In one task of the page: otherwise the live list can move the link away from the mouse in between.
REDRAWN_WHILE_PRESSED = """link => {
    const list = link.closest("table").parentElement;
    link.dispatchEvent(new MouseEvent("mousedown", {bubbles: true}));
    list.innerHTML = list.innerHTML;
    list.dispatchEvent(new MouseEvent("mouseup", {bubbles: true}));
}"""


def test_a_link_that_is_redrawn_while_it_is_pressed_opens(page: Page, job: Job) -> None:
    page.goto("/")
    link = page.get_by_role("link", name="watched-job").first
    address = link.get_attribute("href")
    page.wait_for_function("window.calibrlLinkClicks")
    link.evaluate(REDRAWN_WHILE_PRESSED)
    page.wait_for_url(f"**/{address}*")


def test_a_running_job_is_watched_from_the_list_to_its_end(page: Page, client: Client, job: Job) -> None:
    sent: list[object] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: sent.append(frame))

    page.on("websocket", listen)
    page.goto("/")
    # An event: the list is drawn again every 2 s, and a mouse click of a starved browser takes longer.
    page.get_by_role("link", name="watched-job").first.dispatch_event("click")
    expect(page.get_by_role("heading", name="watched-job")).to_be_visible()
    first = more_points(page, "reward", 0)
    page.evaluate("window.notReloaded = true")
    second = more_points(page, "reward", first)

    zoom(page, "reward")
    page.wait_for_function("document.querySelector('.st-key-reward .js-plotly-plot').layout.xaxis.autorange === false")
    chosen = x_range(page, "reward")
    more_points(page, "reward", second)
    assert x_range(page, "reward") == chosen
    assert page.evaluate("window.notReloaded")

    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel job").click()
    expect(page.get_by_text("⊘ cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    assert client.job(job.id).status == JobStatus.CANCELLED
    sent.clear()
    page.wait_for_timeout(3000)  # more than two ticks: the page must send no more requests
    assert sent == []


SHOWN = re.compile(r"^Entropy \+0\.500 nats; expert's token ")


def append_sample(stack: LocalStack, job: Job) -> None:
    """Let the trainer report one more group with hostile texts, after all others: step 600."""
    folder = stack.data_dir / "runs" / str(job.id) / "attempt-1"
    kept = next(line for line in (folder / "events.jsonl").read_text().splitlines() if '"sample"' in line)
    event = json.loads(kept)
    completion = event["group"]["completions"][0]
    event["step"] = 600
    event["group"]["expert"] = event["group"]["prompt"] = "".join(HOSTILE)
    event["group"]["completions"] = [
        completion | {"text": text, "tokens": [text], "logprobs": [-1.0], "entropies": [0.5], "gaps": [1.0]}
        for text in HOSTILE
    ]
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def test_a_sampled_group_is_shown_and_hostile_text_is_inert(page: Page, stack: LocalStack, job: Job) -> None:
    page.goto(f"/job?id={job.id}&panel=Rollouts")
    image = page.locator(".st-key-card-prompt img")
    expect(image).to_be_visible()
    page.wait_for_function("document.querySelector('.st-key-card-prompt img')?.naturalWidth > 0")
    expect(page.locator("[class*=st-key-card-completion]")).to_have_count(3)  # the other one is equal
    expect(page.locator(".st-key-card-completion-0")).to_contain_text("<think>")

    append_sample(stack, job)
    page.get_by_role("button", name="New samples: show step 600").click()
    expect(page.get_by_text(re.compile(r"^Step 600:"))).to_be_visible()
    for index, text in enumerate(HOSTILE):
        card = page.locator(f".st-key-card-completion-{index}")
        expect(card.locator("label[title]").first).to_have_text(text)
        expect(card).to_contain_text("".join(HOSTILE))  # the expert next to it
        assert card.locator("script, img, b, strong, a, .katex").count() == 0
    assert page.evaluate("window.pwned") is None

    page.get_by_role("radio", name="Entropy").or_(page.get_by_role("button", name="Entropy")).first.click()
    expect(page.locator(".st-key-card-completion-0 label[title]").first).to_have_attribute("title", SHOWN)
    page.reload()
    expect(page.locator(".st-key-card-completion-0 label[title]").first).to_have_attribute("title", SHOWN)


def test_a_job_is_paused_for_the_next_in_line_and_resumed(page: Page, client: Client, job: Job) -> None:
    """The stack has one CPU slot."""
    eventually(lambda: client.job(job.id).status is JobStatus.RUNNING)
    following = submit(client, "next-in-line")
    try:
        page.goto(f"/job?id={following.id}")
        expect(page.get_by_text("Queue position 1 · ")).to_be_visible()
        page.goto(f"/job?id={job.id}")
        more_points(page, "reward", 0)
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_text("‖ paused")).to_be_visible()
        eventually(lambda: client.job(following.id).status is JobStatus.RUNNING)
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_text("○ queued")).to_be_visible()
    finally:
        end(client, following)
    expect(page.get_by_text("▶ running")).to_be_visible()
    assert [checkpoint.step for checkpoint in client.checkpoints(job.id)]
