"""Files that pass through the dashboard: with whose key, and what is refused."""

from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard import signin
from dashboard.reads import downloads

from .conftest import KEY, Refusal, World
from .test_datasets_page import a_dataset, on_the_hub


@pytest.fixture
def browser(world: World) -> TestClient:
    return TestClient(Starlette(routes=downloads.routes), cookies={signin.COOKIE: KEY})


@pytest.mark.parametrize(
    ("name", "format", "file"),
    [
        ("figures", "jsonl", "figures.jsonl"),
        ("rows.parquet", "parquet", "rows.parquet"),
        ('../"é;\r\nX: 1', "jsonl", "..______X__1.jsonl"),
    ],
)
def test_a_data_set_is_saved_under_its_name(
    world: World, browser: TestClient, name: str, format: str, file: str
) -> None:
    id = a_dataset(world, name=name, format=format).id
    world.answers[f"GET /v1/datasets/{id}/content"] = lambda body: b"rows"
    answer = browser.get(f"/{downloads.dataset_address(id)}")
    assert answer.content == b"rows"
    assert answer.headers["content-disposition"] == f'attachment; filename="{file}"'


def test_a_data_set_that_is_only_a_name_has_no_file(world: World, browser: TestClient) -> None:
    id = on_the_hub(world).id
    world.answers[f"GET /v1/datasets/{id}/content"] = lambda body: Refusal(409, "only a name")
    assert browser.get(f"/{downloads.dataset_address(id)}").status_code == 409


def test_without_a_cookie_nothing_is_given(world: World, browser: TestClient) -> None:
    browser.cookies.clear()
    assert browser.get(f"/files/dataset/{uuid4()}").status_code == 401
    assert browser.get(f"/files/{uuid4()}/log.txt").status_code == 401
    assert world.requests == []


def test_inaccessible_files_are_a_404(world: World, browser: TestClient) -> None:
    assert browser.get(f"/files/dataset/{uuid4()}").status_code == 404
    assert browser.get(f"/files/{uuid4()}/log.txt").status_code == 404


@pytest.mark.parametrize("name", ["secrets.txt", "checkpoint-x.tar", "result/"])
def test_a_bad_name_is_no_file(world: World, browser: TestClient, name: str) -> None:
    assert browser.get(f"/files/{world.add().id}/{name}").status_code == 404
    assert browser.get("/files/dataset/none").status_code == 404
