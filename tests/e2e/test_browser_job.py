"""A job's page in headless Chromium, on the whole stack: the map, a fork, downloads, and the findings of axe-core."""

import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from calibrl.client import Client
from calibrl.schemas import Job, NewKey
from tests.e2e.conftest import SETTLED, end, evaluated, leaves, submit, zoom
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow]

PANELS = (
    "Overview", "Exploration", "Expert mismatch", "Map", "Rollouts", "Metrics", "Health", "System", "Log", "Files",
    "Events", "Spec",
)  # fmt: skip
ADDRESSES = (
    "/", "/new", "/new?kind=Evaluation", "/queue", "/evaluations", "/studies", "/data", "/data?show=Upload+a+file",
    "/settings",
)  # fmt: skip

ZOOMED = "selector => document.querySelector(selector).layout.xaxis.autorange === false"
RISING = "plot => plot.data.every(({ x }) => x.every((place, index) => !index || place >= x[index - 1]))"
KEEP_EXPORT = """() => {
    const save = window.Plotly.downloadImage;
    window.Plotly.downloadImage = (figure, options) => {
        const { height, width } = options;
        const box = document.createElement("div");
        const layout = { ...structuredClone(figure.layout), autosize: false, height, width };
        window.exported = window.Plotly.newPlot(box, structuredClone(figure.data), layout);
        window.Plotly.downloadImage = save;
        return save(figure, options);
    };
}"""
SHOWN = """plot => ({
    x: plot._fullLayout.xaxis.range.map(end => end.toPrecision(3)),
    y: plot._fullLayout.yaxis.range.map(end => end.toPrecision(3)),
    lines: plot._fullData.filter(line => line.visible === true).map(line => line.name),
})"""
CHART_BUTTONS = {"Zoom", "Pan", "Autoscale", "Reset axes"}
ADDRESSES_OF_CONTROLS = """() => [...document.querySelectorAll('a[href], form[action], [src], link[href]')]
    .map(part => part.action || part.src || part.href).filter(address => typeof address === 'string')"""


def ended_job(client: Client, name: str) -> Job:
    """Run a job for a while and cancel it; it has groups and a checkpoint."""
    job = submit(client, name)
    eventually(lambda: client.job(job.id).step >= 12)
    client.pause(job.id)
    eventually(lambda: client.checkpoints(job.id))
    end(client, job)
    return client.job(job.id)


@pytest.fixture(scope="module")
def ended(client: Client) -> Job:
    return ended_job(client, "ended-job")


def test_a_click_on_the_map_opens_its_group(page: Page, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}&panel=Map")
    plot = page.locator(".st-key-map .js-plotly-plot")
    expect(plot.locator(".point").first).to_be_visible()
    step, _ = plot.evaluate("plot => plot.data.at(-1).customdata[0]")
    point = plot.locator(".scatterlayer .trace").last.locator(".point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_text(re.compile(rf"^Step {step}:"))).to_be_visible()
    expect(page.locator("[class*=st-key-card-completion]")).to_have_count(3)  # the other one is equal
    for part in ("panel=Rollouts", f"step={step}"):  # the first group is the one without a number
        expect(page).to_have_url(re.compile(part))


def test_a_fork_begins_at_a_checkpoint(page: Page, client: Client, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}")
    page.get_by_role("button", name="Fork").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Name").fill("forked-job")
    form.get_by_role("textbox", name="Config overrides").fill("steps: 0")
    form.get_by_role("button", name="Fork").click()
    fault = form.locator(".st-key-fault-steps")
    expect(fault).to_contain_text("steps")
    expect(fault).to_contain_text("at least 1")
    form.get_by_role("textbox", name="Config overrides").fill("steps: 2999")
    form.get_by_role("button", name="Fork").click()
    expect(page.get_by_role("heading", name="forked-job")).to_be_visible()
    new = client.jobs(q="forked-job").data[0]
    try:
        expect(page).to_have_url(re.compile(rf"id={new.id}"))
        assert (new.forked_from, client.job(new.id).spec["steps"]) == (ended.id, 2999)
        expect(page.locator(".st-key-card-lineage").get_by_role("link", name="ended-job")).to_be_visible()
    finally:
        end(client, client.job(new.id))


def test_files_are_downloaded_with_the_viewers_key(page: Page, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}&panel=Files")
    with page.expect_download() as table:
        page.get_by_role("link", name="CSV").click()
    assert table.value.path().read_text().startswith("step,ts,")
    with page.expect_download() as checkpoint:
        page.get_by_role("link", name=re.compile("^Download, ")).first.click()
    assert b"state.json" in checkpoint.value.path().read_bytes()


def test_a_charts_data_is_saved_as_csv(page: Page, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}")
    page.locator(".st-key-reward .js-plotly-plot").scroll_into_view_if_needed()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the data of Reward as CSV").click()
    lines = saved.value.path().read_text().splitlines()
    assert lines[0] == "series,step,mean reward"
    assert lines[1].startswith("mean reward")


def test_a_chart_is_saved_as_a_picture(page: Page, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}")
    page.locator(".st-key-reward .js-plotly-plot").scroll_into_view_if_needed()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save Reward as PNG").click()
    assert saved.value.suggested_filename == "reward.png"
    with Image.open(saved.value.path()) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50  # axes, text and a line: not an empty picture


def in_picture(page: Page, title: str) -> dict[str, Any]:
    """Save a chart as PNG. Return the ranges and the visible lines that its picture has."""
    page.evaluate(KEEP_EXPORT)
    with page.expect_download():
        page.get_by_role("button", name=f"Save {title} as PNG").click()
    picture: dict[str, Any] = page.evaluate(f"async () => ({SHOWN})(await window.exported)")
    return picture


def on_screen(page: Page, chart: str) -> dict[str, Any]:
    """Return the ranges and the visible lines of a chart."""
    screen: dict[str, Any] = page.locator(f".st-key-{chart} .js-plotly-plot").evaluate(SHOWN)
    return screen


def test_a_picture_equals_the_screen_after_every_zoom(page: Page, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}")
    page.wait_for_function(SETTLED)
    for chart, title in (("accuracy", "Accuracy"), ("reward", "Reward")):  # a fixed axis, and one that fits the data
        plot = f".st-key-{chart} .js-plotly-plot"
        whole = on_screen(page, chart)
        assert in_picture(page, title) == whole
        zoom(page, chart)
        page.wait_for_function(ZOOMED, arg=plot)
        zoomed = on_screen(page, chart)
        assert zoomed["y"] != whole["y"]
        assert in_picture(page, title) == zoomed
        page.locator(f".st-key-{chart} .nsewdrag").dblclick()
        page.wait_for_function(f"plot => !({ZOOMED})(plot)", arg=plot)
        assert in_picture(page, title) == on_screen(page, chart) == whole


def test_a_picture_leaves_out_the_lines_that_a_reader_hides(page: Page, ended: Job) -> None:
    page.goto(f"/job?id={ended.id}")
    page.wait_for_function(SETTLED)
    assert "policy" in in_picture(page, "Losses")["lines"]
    page.locator(".st-key-losses .legendtoggle").first.click()
    page.wait_for_function(
        "document.querySelector('.st-key-losses .js-plotly-plot').data.some(line => line.visible === 'legendonly')"
    )
    assert "policy" not in in_picture(page, "Losses")["lines"]
    assert in_picture(page, "Losses") == on_screen(page, "losses")


def test_no_control_of_a_page_leaves_the_service(page: Page, client: Client, ended: Job) -> None:
    """The fixture of the tab checks the requests themselves."""
    evaluation = evaluated(client, "controls", 1, 4)
    for place in looked_at(page, ended, evaluation):
        addresses = page.evaluate(ADDRESSES_OF_CONTROLS)
        assert [address for address in addresses if leaves(address, page.url)] == [], place
        buttons = page.locator(".modebar-btn").evaluate_all("buttons => buttons.map(button => button.dataset.title)")
        assert set(buttons) <= CHART_BUTTONS, place
        servers = page.locator(".js-plotly-plot").evaluate_all("plots => plots.map(p => p._context.plotlyServerURL)")
        assert set(servers) <= {""}, place


def test_jobs_are_searched_and_compared(page: Page, ended: Job) -> None:
    page.goto("/")
    page.get_by_label("Search").fill("no-such-name")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No jobs match these filters")).to_be_visible()
    page.goto("/?q=ended")
    expect(page.get_by_role("link", name="ended-job")).to_be_visible()
    expect(page.get_by_role("img", name="entropy of ended-job")).to_be_visible()


def test_two_jobs_are_compared(page: Page, client: Client, ended: Job) -> None:
    other = ended_job(client, "other-job")  # equal except for its name, and with the same seed
    page.goto(f"/compare?jobs={ended.id},{other.id}")
    chart = ".st-key-compare-{}-exploration-entropy .js-plotly-plot"
    drawn = "([chart, line]) => document.querySelector(chart)?.data?.some(trace => trace.name === line)"
    for name in ("ended-job", "other-job"):
        page.wait_for_function(drawn, arg=[chart.format("step"), name])
    expect(page.get_by_text("Group seeds")).to_have_count(0)
    page.get_by_role("radio", name="tokens").click()
    page.wait_for_function(drawn, arg=[chart.format("tokens"), "other-job"])
    assert page.locator(chart.format("tokens")).evaluate("plot => plot.data[0].x.at(-1)") > other.step
    page.get_by_role("radio", name="time").click()
    page.wait_for_function(drawn, arg=[chart.format("time"), "other-job"])
    assert page.locator(chart.format("time")).evaluate(RISING)


def test_a_signed_in_user_sees_own_projects_until_sign_out(page: Page, client: Client, ended: Job) -> None:
    client.add_user("ann")
    key = client.create_key(NewKey(name="browser", user="ann")).key
    address = f"/job?id={ended.id}"
    page.goto(f"/signin?next={quote(address, safe='')}")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Job not found")).to_be_visible()
    expect(page).to_have_url(re.compile(re.escape(address)))
    client.put_member("default", "ann", "viewer")
    page.reload()
    expect(page.get_by_role("heading", name="ended-job")).to_be_visible()
    expect(page.get_by_role("button", name="Fork")).to_have_count(0)  # a viewer can only read
    page.goto("/settings")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(re.compile("/signin"))
    assert all(found["name"] != "calibrl_session" for found in page.context.cookies())


# The small curves of st.metric are drawn by Streamlit with Vega, whose highlighted points carry a role and no name.
WITHIN_STREAMLIT = {"exclude": [["[data-testid=stMetricChart]"]]}


def violations(page: Page) -> list[str]:
    """Return axe-core's serious and critical findings as rule, place and reason."""
    found = Axe().run(page, context=WITHIN_STREAMLIT, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']} {node['target']} {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def looked_at(page: Page, job: Job, evaluation: Job) -> Iterator[str]:
    """Yield every page and every panel, one after the other, when it is drawn."""
    page.goto(f"/job?id={job.id}")
    for panel in PANELS:
        page.get_by_role("radio", name=panel, exact=True).click()
        page.wait_for_url(re.compile(rf"panel={panel.replace(' ', '.')}") if panel != "Overview" else "**")
        page.evaluate("document.activeElement.blur()")  # Streamlit's own tint of a focused choice is below 4.5:1
        page.mouse.move(0, 0)
        page.wait_for_function(SETTLED)
        yield panel
    for address in (*ADDRESSES, f"/compare?jobs={job.id}", f"/job?id={evaluation.id}"):
        page.goto(address)
        page.wait_for_function(SETTLED)
        yield address
    page.goto("/signin")
    yield "/signin"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, client: Client, ended: Job, theme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=theme)
    evaluation = evaluated(client, "looked-at", 1, 4)
    wrong = {place: found for place in looked_at(page, ended, evaluation) if (found := violations(page))}
    assert wrong == {}


# A wider page is cut off, or its main part scrolls sideways.
WIDER = """() => [document.documentElement, document.querySelector('[data-testid=stMain]')]
    .some(box => box?.scrollWidth > innerWidth)"""


def test_no_page_is_wider_than_a_phone(page: Page, client: Client, ended: Job) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    evaluation = evaluated(client, "on-a-phone", 1, 4)
    assert [place for place in looked_at(page, ended, evaluation) if page.evaluate(WIDER)] == []
