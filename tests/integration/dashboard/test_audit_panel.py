"""The result of an audit of experts on the page of its job."""

import pytest

from calibrl.schemas import JobStatus
from tests.support.audits import CONCLUSION, audit_result, audit_row
from tests.support.dashboard.pages import charts, html, job_page, jobs_page
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration


def test_verdicts_distributions_and_the_worst_rows_are_shown(world: World) -> None:
    job = world.add(kind="audit", name="audited", status=JobStatus.SUCCEEDED, result=audit_result())
    app = job_page(job.id)
    text = html(app)
    assert CONCLUSION in text
    for part in ("drop: refused by a reward", "1 of 4", "3 right, 4 in the format, 0 cut", "1.88 nats/token", "50.0%"):
        assert part in text
    assert text.index("use: right") < text.index("rewrite: right") < text.index("drop: refused")
    assert text.index("the reward math refuses the expert") < text.index("far from the policy: 3.50")
    assert "restated with 0.90 nats per token" in text
    figures = charts(app)
    assert figures["audit-nll"]["data"][0]["y"] == [2, 0, 0, 2]
    assert figures["audit-gap"]["data"][0]["x"] == [-1.0, 1.0]
    assert "<td>Audit</td>" in html(jobs_page())


def test_reasons_are_shown_as_text(world: World) -> None:
    row = audit_row(1, "drop", 1.0, reasons=[HOSTILE])
    job = world.add(kind="audit", status=JobStatus.SUCCEEDED, result=audit_result(row))
    assert "<script>" not in html(job_page(job.id))


def test_an_audit_without_a_result_says_so(world: World) -> None:
    assert "No result yet" in html(job_page(world.add(kind="audit").id))
    assert "No result" in html(job_page(world.add(kind="audit", status=JobStatus.CANCELLED).id))


def test_a_result_of_another_version_is_explained(world: World) -> None:
    job = world.add(kind="audit", status=JobStatus.SUCCEEDED, result={"something": "else"})
    (shown,) = [code.value for code in job_page(job.id).code]
    assert "format that this version does not know" in shown
