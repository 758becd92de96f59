"""States of jobs for notifications of the browser: whose jobs, and in what form."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from calibrl.schemas import HealthAlert, JobStatus, Role
from dashboard import news, signin
from tests.support.dashboard.pages import job_page, open_page
from tests.support.dashboard.world import World

pytestmark = pytest.mark.integration


@pytest.fixture
def browser(world: World) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=news.routes)) as client:
        yield client


def test_the_news_are_those_of_own_and_named_jobs(world: World, browser: TestClient) -> None:
    theirs, others, third = (world.add(name=name) for name in ("theirs", "others", "third"))
    browser.cookies.set(signin.COOKIE, world.sign_in("ines", {"default": Role.MEMBER}))
    mine = world.add(name="mine", user="ines", status=JobStatus.RUNNING)
    world.alert(mine, HealthAlert(rule="entropy_collapse", state="fired", step=4, message="low", suggestion=""))
    world.requests.clear()
    answer = browser.get("/news", params={"jobs": f"{theirs.id},{third.id},{uuid4()}"})
    assert len(world.requests) == 3  # the viewer, the viewer's jobs, and all others at once
    found = answer.json()
    assert found["user"] == "ines" and others.id
    assert {job["name"] for job in found["jobs"]} == {"mine", "theirs", "third"}
    state = next(job for job in found["jobs"] if job["name"] == "mine")
    alerts = state.pop("alerts")
    assert state == {"id": str(mine.id), "name": "mine", "status": "running", "final": False, "finished": None}
    assert alerts == ["Entropy collapse"]
    assert answer.headers["cache-control"] == "no-store"


def test_news_need_a_session_and_ids(world: World, browser: TestClient) -> None:
    assert browser.get("/news").status_code == 401
    browser.cookies.set(signin.COOKIE, world.key)
    assert browser.get("/news", params={"jobs": "x"}).status_code == 400


def test_jobs_of_others_can_be_watched(world: World) -> None:
    world.sign_in("bob", {"default": Role.MEMBER})
    theirs = world.add(status=JobStatus.RUNNING, user="bob")
    roles = [component.proto.json for component in job_page(theirs.id).get("bidi_component")]
    assert not any('"watch"' in text for text in roles)  # it is one's own
    world.sign_in("ines", {"default": Role.VIEWER})
    roles = [component.proto.json for component in job_page(theirs.id).get("bidi_component")]
    assert any('"watch"' in text and str(theirs.id) in text for text in roles)
    switches = [component.proto.json for component in open_page("settings").get("bidi_component")]
    assert any('"switch"' in text for text in switches)
