"""Pages of the dashboard if the API refuses the key or a request, or is unreachable."""

import pytest

from tests.support.dashboard.pages import html, job_page, jobs_page
from tests.support.dashboard.world import Refusal, World

pytestmark = pytest.mark.integration

NO_JOB = "00000000-0000-0000-0000-000000000000"


def test_a_service_that_does_not_answer_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_API_URL", "http://127.0.0.1:9")
    app = jobs_page()
    assert app.subheader[0].value == "API unreachable"
    assert "http://127.0.0.1:9" in app.code[0].value


def test_a_wrong_key_is_explained(world: World) -> None:
    world.key = "another-key"
    assert jobs_page().subheader[0].value == "API key revoked or expired"


def test_without_a_key_there_is_a_way_to_sign_in(world: World) -> None:
    world.key = ""
    assert 'href="/signin?next=%2F"' in html(jobs_page())
    assert f"%3Fid%3D{NO_JOB}%26panel%3DLog" in html(job_page(NO_JOB, "Log"))
    app = jobs_page()
    app.query_params["run-metrics"] = ["loss/a", "loss/b"]
    assert "run-metrics%3Dloss%252Fa%26run-metrics%3Dloss%252Fb" in html(app.run())
    assert world.requests == []


@pytest.mark.parametrize(
    ("status", "title"),
    [(409, "Conflict"), (413, "Too large"), (422, "Invalid input"), (429, "Too many requests"), (503, "Service busy")],
)
def test_a_refusal_of_the_service_has_a_title_by_its_status(world: World, status: int, title: str) -> None:
    world.refusals["GET /v1/jobs"] = Refusal(status, "because <b>so</b>")
    app = jobs_page()
    assert app.subheader[0].value == title
    assert "because <b>so</b>" in app.code[0].value


@pytest.mark.parametrize("address", ["", "not-an-id"])
def test_an_address_that_names_no_job_is_explained(world: World, address: str) -> None:
    assert "No job selected" in html(job_page(address))


def test_a_job_that_does_not_exist_is_explained(world: World) -> None:
    assert "Job not found" in html(job_page(NO_JOB))
