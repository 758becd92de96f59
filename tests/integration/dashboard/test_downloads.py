"""Files that pass through the dashboard: with whose key, and what is refused."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard import addresses, signin
from dashboard.reads import downloads
from tests.support.dashboard.world import World

pytestmark = pytest.mark.integration


@pytest.fixture
def browser(world: World) -> Iterator[TestClient]:
    with TestClient(
        Starlette(routes=[*addresses.routes, *downloads.routes]), cookies={signin.COOKIE: world.key}
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "format", "file"),
    [
        ("figures", "jsonl", "figures.jsonl"),
        ("rows.parquet", "parquet", "rows.parquet"),
        ('../"é;\r\nX: 1', "jsonl", "..______X__1.jsonl"),
    ],
)
def test_a_dataset_is_saved_under_its_name(
    world: World, browser: TestClient, name: str, format: str, file: str
) -> None:
    id = world.add_dataset(b"rows", name=name, format=format, bytes=4).id
    answer = browser.get(f"/{downloads.dataset_address(id)}")
    assert answer.content == b"rows"
    assert answer.headers["content-disposition"] == f'attachment; filename="{file}"'


def test_a_registered_hub_dataset_has_no_file(world: World, browser: TestClient) -> None:
    id = world.add_hub_dataset().id
    assert browser.get(f"/{downloads.dataset_address(id)}").status_code == 409


def test_files_of_a_job_are_saved_under_its_name(world: World, browser: TestClient) -> None:
    job = world.add()
    world.log(job, b"step 1 fine\n")
    answer = browser.get(f"/{downloads.address(job.id, 'log.txt')}")
    assert answer.content == b"step 1 fine\n"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job.name}-{str(job.id)[:8]}-log.txt"'


def test_a_job_opens_by_its_id_in_the_path(browser: TestClient) -> None:
    id = uuid4()
    answer = browser.get(f"/job/{id}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"../job?id={id}")


def test_without_a_cookie_no_data_is_sent(world: World, browser: TestClient) -> None:
    browser.cookies.clear()
    assert browser.get(f"/files/dataset/{uuid4()}").status_code == 401
    assert browser.get(f"/files/{uuid4()}/log.txt").status_code == 401
    assert world.requests == []


def test_inaccessible_files_are_a_404(world: World, browser: TestClient) -> None:
    assert browser.get(f"/files/dataset/{uuid4()}").status_code == 404
    assert browser.get(f"/files/{uuid4()}/log.txt").status_code == 404


@pytest.mark.parametrize("name", ["secrets.txt", "checkpoint-x.tar", "result/"])
def test_an_invalid_name_is_not_found(world: World, browser: TestClient, name: str) -> None:
    assert browser.get(f"/files/{world.add().id}/{name}").status_code == 404
    assert browser.get("/files/dataset/none").status_code == 404
