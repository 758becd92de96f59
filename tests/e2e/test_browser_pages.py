"""New job, evaluations and datasets in headless Chromium, on the whole stack."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from calibrl.client import Client
from calibrl.schemas import JobStatus
from tests.e2e.conftest import evaluated
from tests.support.audits import CONCLUSION
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow]

HOSTILE = '<script>window.pwned = 1</script><img src="x" onerror="window.pwned = 2">**bold** $x^2$'


def id_in(page: Page) -> UUID:
    return UUID(page.url.partition("id=")[2])


def test_a_job_is_submitted_from_the_form_and_cancelled(page: Page, client: Client) -> None:
    page.goto("/")
    page.get_by_role("button", name="New job").click()
    expect(page.get_by_text("✓ Starts now")).to_be_visible()

    page.get_by_label("Name", exact=True).fill("from the form")
    page.get_by_label("Name", exact=True).press("Tab")
    page.get_by_role("spinbutton", name="Prompts per step").fill("65000")
    page.get_by_role("spinbutton", name="Prompts per step").press("Enter")
    expect(page.get_by_text("the data has only 4,096 rows")).to_be_visible()  # a warning of the plan
    expect(page.get_by_text("prompts_per_step: 65000")).to_be_visible()  # the YAML

    page.get_by_label("Name", exact=True).fill("no/name")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(page.get_by_text("✕ Invalid config")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="Must contain only")).to_be_visible()  # at the field
    expect(page.get_by_role("button", name="Submit job")).to_be_disabled()

    page.get_by_label("Name", exact=True).fill("from the form")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(page.get_by_text("✕ Invalid config")).to_have_count(0)
    page.get_by_role("button", name="Submit job").click()
    expect(page.get_by_role("heading", name="from the form")).to_be_visible()
    job = client.job(id_in(page))
    assert (job.spec["prompts_per_step"], job.spec["algorithm"]["type"]) == (65000, "calibrl")

    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel job").click()
    expect(page.get_by_text("⊘ cancelled")).to_be_visible()
    assert client.job(job.id).status is JobStatus.CANCELLED


def picture() -> str:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((32, 32)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def written(path: Path, *rows: Mapping[str, object]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_file_is_uploaded_previewed_and_deleted(page: Page, client: Client, tmp_path: Path) -> None:
    good = {"question": f"<image> {HOSTILE}", "answer": "7", "expert": HOSTILE, "images": [picture()]}
    page.goto("/data")
    expect(page.get_by_text("No datasets yet")).to_be_visible()
    page.get_by_role("radio", name="Upload a file").or_(page.get_by_role("button", name="Upload a file")).first.click()
    file = page.locator("input[type=file]")
    file.set_input_files(
        written(tmp_path / "faulty.jsonl", good, {"question": "x"}, {"answer": "7"}, {"question": "y", "answer": []})
    )
    page.get_by_role("button", name="Validate and upload").click()
    faults = page.locator(".st-key-faults")
    expect(faults.get_by_role("row", name="row 2")).to_contain_text("the same fault: 1 more row")
    expect(faults.get_by_role("cell", name="row 3")).to_be_visible()
    assert client.datasets().data == []

    page.reload()
    file.set_input_files(written(tmp_path / "figures.jsonl", good))
    page.get_by_role("button", name="Validate and upload").click()
    row = page.locator(".st-key-row-1")
    expect(row).to_contain_text(HOSTILE)
    page.wait_for_function("document.querySelector('.st-key-row-1 img')?.naturalWidth > 0")
    assert row.locator("script, b, strong, .katex").count() == 0 and row.locator("img").count() == 1
    assert page.evaluate("window.pwned") is None
    (dataset,) = client.datasets().data
    assert (dataset.name, dataset.id) == ("figures", id_in(page))

    with page.expect_download() as download:
        page.get_by_role("link", name="Download, jsonl").click()
    assert Path(download.value.path()).read_bytes() == (tmp_path / "figures.jsonl").read_bytes()

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete dataset").click()
    expect(page.get_by_text("No datasets yet")).to_be_visible()
    assert client.datasets().data == []


def test_evaluations_are_compared(page: Page, client: Client) -> None:
    evaluated(client, "the-better", 4)
    evaluated(client, "the-same-twice", 1, 1)
    page.goto("/evaluations")
    expect(page.get_by_role("link", name="the-better")).to_be_visible()
    page.get_by_role("radio", name="Compare").or_(page.get_by_role("button", name="Compare")).first.click()
    choice = page.get_by_role("combobox", name="Evaluations")
    for name in ("the-better", "the-same-twice"):
        choice.fill(name)
        page.get_by_role("option", name=name).first.click()
    expect(page.get_by_text("not significant", exact=True)).to_be_visible()
    expect(page.get_by_text("tiny-vlm, seed 4 is better")).to_have_count(2)
    expect(page.locator(".st-key-accuracy-0 .js-plotly-plot .legendtext")).to_have_count(3)
    page.reload()  # the URL has the whole selection
    expect(page.get_by_text("not significant", exact=True)).to_be_visible()


def test_stored_completions_are_scored_again(page: Page, client: Client) -> None:
    spec = {
        "kind": "train",
        "name": "trained",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "rollout": {"group_size": 4},
        "samples": {"every_steps": 1},
        "prompts_per_step": 4,
        "steps": 4,
    }
    job = client.submit(spec).wait(LIMIT_SECONDS)
    eventually(lambda: client.samples(job.id).data)
    page.goto("/evaluations?view=Re-score")
    page.get_by_role("button", name="Re-score").last.click()
    expect(page.get_by_text("No changes")).to_be_visible()
    tolerance = page.get_by_role("spinbutton", name="Relative tolerance")
    tolerance.fill("0.2")  # if 7 is correct, 8 is within the tolerance
    tolerance.press("Enter")
    page.get_by_role("button", name="Re-score").last.click()
    page.get_by_role("link", name="step 1", exact=True).first.click()
    expect(page.get_by_text("Step 1:")).to_be_visible()
    assert UUID(page.url.partition("id=")[2].partition("&")[0]) == job.id


def test_an_audit_shows_its_verdicts_and_distributions(page: Page, client: Client) -> None:
    model, data = {"builtin": "tiny-vlm"}, {"builtin": "digits", "rows": 4}
    job = client.submit({"kind": "audit", "name": "audited", "model": model, "data": data})
    assert client.wait(job.id, LIMIT_SECONDS).status is JobStatus.SUCCEEDED
    page.goto(f"/job?id={job.id}")
    expect(page.get_by_text(CONCLUSION)).to_be_visible()
    expect(page.get_by_text("the reward math refuses the expert")).to_be_visible()
    expect(page.locator(".live-chart .trace.bars")).to_have_count(2)
