"""The service that the client talks to: its address, its key and the local stack."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calibrl.client import CalibrlError, Client, read_stack
from calibrl.folder_lock import folder_lock
from calibrl.stack.services import free_port

from .conftest import Service, page


def stack_file(url: str) -> str:
    return json.dumps({"api_url": url, "dashboard_url": "http://x", "api_key": "key-of-the-stack"})


@contextmanager
def running_stack(folder: Path, content: str) -> Iterator[None]:
    """Write the stack file and hold the folder's lock, as a running stack does."""
    folder.mkdir(exist_ok=True)
    (folder / "stack.json").write_text(content)
    with folder_lock(folder):
        yield


def test_a_refused_connection_names_the_address_and_the_fix(service: Service) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, "k") as client, pytest.raises(CalibrlError) as caught:
        client.jobs()
    assert str(caught.value) == f"nothing answers at {url}: start the service with `calibrl up`"


@pytest.mark.parametrize("url", ["localhost:8000", "", "http://", "ftp://host", "http://host:port"])
def test_an_invalid_address_is_refused(service: Service, url: str) -> None:
    with pytest.raises(CalibrlError, match="is not the URL of a service: use one like http://127"):
        Client(url, "k")


def test_a_key_that_no_header_can_carry(service: Service) -> None:
    with pytest.raises(CalibrlError, match="CALIBRL_API_KEY"):
        Client(service.url, "schlüssel\n")


def test_the_local_stack_is_asked_where_nothing_else_is_set(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALIBRL_API_URL")
    monkeypatch.delenv("CALIBRL_API_KEY")
    service.on("GET", "/v1/jobs", page())
    with running_stack(tmp_path / "data", stack_file(service.url)), Client() as client:
        client.jobs()
    assert service.requests[0].headers["Authorization"] == "Bearer key-of-the-stack"


@pytest.mark.parametrize("key", [None, "a-key"])
def test_an_address_with_a_login_is_refused_and_not_shown(service: Service, key: str | None) -> None:
    with pytest.raises(CalibrlError, match="has a login in it: remove the login") as refused:
        Client("http://ann:secret@127.0.0.1:8000", key)
    assert "secret" not in str(refused.value)


def test_the_stacks_key_goes_to_no_other_address(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALIBRL_API_KEY")
    with (
        running_stack(tmp_path / "data", stack_file("http://127.0.0.1:1")),
        pytest.raises(CalibrlError, match=f"no local stack is running .* no key for {service.url} is set"),
    ):
        Client()


def test_a_folder_names_its_stack_before_the_environment_does(service: Service, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with running_stack(other, stack_file("http://127.0.0.1:1")), Client(data_dir=other) as client:
        assert client.url == "http://127.0.0.1:1"
    with pytest.raises(CalibrlError, match=f"no stack is running on {tmp_path}: start one with `calibrl up --data"):
        Client(data_dir=tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\xff", '{"api_url": "http://127.0.0.1:1"}'])
def test_a_broken_stack_file_is_one_line(service: Service, tmp_path: Path, content: str) -> None:
    with running_stack(tmp_path, content), pytest.raises(CalibrlError, match=r"stack\.json"):
        Client(data_dir=tmp_path)


def test_the_file_of_a_killed_stack_is_ignored(service: Service, tmp_path: Path) -> None:
    """Another process can use its port by now and must not get its key."""
    with running_stack(tmp_path, stack_file(service.url)):
        assert read_stack(tmp_path) is not None
    assert (tmp_path / "stack.json").exists()
    assert read_stack(tmp_path) is None
    with pytest.raises(CalibrlError, match=f"no stack is running on {tmp_path}"):
        Client(data_dir=tmp_path)
