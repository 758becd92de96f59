"""Checkpoints and results over real HTTP: lists, ranges, archives, and what must never be given out."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from jobs.db import session_scope
from jobs.repository import checkpoints
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.rest import refused

pytestmark = pytest.mark.integration
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 5000, "adapter/a.json": b"[1]", "empty": b""}


def write_checkpoint(job_id: UUID, step: int = 5, folder: Path | None = None) -> Path:
    """Write a checkpoint to disk and record it in the database."""
    folder = folder or get_settings().run_dir(job_id, 1) / "checkpoints" / f"step-{step:06d}"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with session_scope() as session:
        checkpoints.record(session, job_id, step, str(folder), True, {}, [])
    return folder


def path(job_id: UUID, *rest: str, step: int = 5) -> str:
    return "/".join([f"/v1/jobs/{job_id}/checkpoints/{step}", *rest])


def test_a_checkpoint_s_files_are_listed_and_given_out(http: httpx.Client) -> None:
    job_id = job_steps.submit()
    write_checkpoint(job_id)
    found = http.get(path(job_id)).json()
    assert {file["name"]: file["bytes"] for file in found["files"]} == {n: len(c) for n, c in FILES.items()}
    assert (found["step"], found["best"]) == (5, True)
    for file in found["files"]:
        answer = http.get(path(job_id, "files", file["name"]))
        assert (answer.status_code, answer.content) == (200, FILES[file["name"]])
        assert answer.headers["etag"] == f'"{file["etag"]}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
    part = http.get(path(job_id, "files/model.safetensors"), headers={"Range": "bytes=300-999999"})
    assert (part.status_code, part.content) == (206, FILES["model.safetensors"][300:1_000_000])
    refused(http.get(path(job_id, "files/none")), 404)
    refused(http.get(path(job_id, step=6)), 404)
    refused(http.get(path(UUID(int=0))), 404)


def test_the_archive_is_a_tar_of_all(http: httpx.Client) -> None:
    job_id = job_steps.submit()
    write_checkpoint(job_id)
    answer = http.get(path(job_id, "archive"))
    assert answer.headers["content-type"] == "application/x-tar"
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == FILES  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name",
    [
        "../step-000005/config.json",
        "..%2f..%2f..%2fevents.jsonl",
        "%2e%2e/%2e%2e/%2e%2e/config.json",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "adapter%2f..%2fconfig.json",
        "adapter",
        "",
        "link",
        "folder-link/secret",
        "pipe",
        "config.json/",
        "config.json%00.txt",
        "x" * 2000,
    ],
)
def test_nothing_but_the_checkpoint_s_own_files_is_given_out(http: httpx.Client, tmp_path: Path, name: str) -> None:
    job_id = job_steps.submit()
    folder = write_checkpoint(job_id)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder-link").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    assert {file["name"] for file in http.get(path(job_id)).json()["files"]} == set(FILES)
    address = httpx.URL(str(http.base_url)).copy_with(raw_path=f"{path(job_id, 'files')}/{name}".encode())
    answer = http.send(http.build_request("GET", address))
    assert answer.status_code in (400, 404, 422), answer.text
    assert b"secret" not in answer.content.replace(b"folder-link/secret", b"")


def test_a_checkpoint_that_lies_elsewhere_says_so(http: httpx.Client, tmp_path: Path) -> None:
    job_id, other = job_steps.submit(), job_steps.submit()
    (tmp_path / "runs" / str(job_id)).mkdir(parents=True)
    places = [tmp_path / "elsewhere", get_settings().run_dir(other, 1) / "checkpoints" / "step-000005"]
    linked = get_settings().run_dir(job_id, 2) / "checkpoints" / "step-000005"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(places[1])
    hidden = get_settings().job_dir(job_id) / ".." / str(other)
    for place in (*places, linked, hidden):
        write_checkpoint(job_id, folder=place)
        for rest in ([], ["archive"], ["files", "config.json"]):
            assert "worker's disk" in refused(http.get(path(job_id, *rest)), 409)["detail"]
    with session_scope() as session:
        checkpoints.record(session, job_id, 5, str(get_settings().run_dir(job_id, 9)), True, {}, [])
    refused(http.get(path(job_id)), 409)


def evaluation() -> UUID:
    model, data = {"builtin": "tiny-vlm"}, {"builtin": "digits", "split": "test"}
    return job_steps.submit_spec({"kind": "evaluate", "name": "x", "models": [model], "data": [data]})


def test_results_of_an_evaluation(http: httpx.Client, client: Client, tmp_path: Path) -> None:
    job_id = evaluation()
    assert client.results(job_id) == []
    job_steps.claim()
    assert "The API cannot read the results" in refused(http.get(f"/v1/jobs/{job_id}/results"), 409)["detail"]
    folder = get_settings().run_dir(job_id, 1)
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("{}")
    (folder / "answers.jsonl").write_text('{"passed": [true]}\n')
    assert [file.name for file in client.results(job_id)] == ["answers.jsonl"]
    assert http.get(f"/v1/jobs/{job_id}/results/answers.jsonl").text == '{"passed": [true]}\n'
    refused(http.get(f"/v1/jobs/{job_id}/results/events.jsonl"), 404)
    (found,) = client.download_results(job_id, tmp_path / "here")
    assert found.read_text() == '{"passed": [true]}\n'
    assert client.results(job_steps.submit()) == []


def test_the_client_continues_where_it_was_disconnected(client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    job_id, target = job_steps.submit(), tmp_path / "here"
    write_checkpoint(job_id)
    calls: list[tuple[int, int | None]] = []
    file = next(one for one in client.checkpoint(job_id, 5).files if one.name == "model.safetensors")
    target.mkdir()
    half = target / f".model.safetensors.{file.etag}.partial"
    half.write_bytes(FILES["model.safetensors"][:1_000_000])
    asked: list[str | None] = []
    stream = client._http.stream

    def watched(*arguments: Any, **options: Any) -> Any:
        asked.append(options["headers"]["Range"])
        return stream(*arguments, **options)

    monkeypatch.setattr(client._http, "stream", watched)
    paths = client.download_checkpoint(job_id, 5, target, progress=lambda done, total: calls.append((done, total)))
    assert "bytes=1000000-" in asked
    assert {str(one.relative_to(target)): one.read_bytes() for one in paths} == FILES
    assert sorted(one.name for one in target.rglob("*") if one.is_file()) == sorted(Path(name).name for name in FILES)
    total = sum(map(len, FILES.values()))
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_dataset_downloads_as_it_was_uploaded(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "1 + 2?", "answer": "3"}\n')
    dataset = client.upload(file)
    target = tmp_path / "back" / "copy.jsonl"
    assert client.download_dataset(dataset.id, target).read_bytes() == file.read_bytes()
    assert [one.name for one in target.parent.iterdir()] == ["copy.jsonl"]
    noted = client.register("named", "hiyouga/geometry3k")
    with pytest.raises(CalibrlError, match="has no file in the service"):
        client.download_dataset(noted.id, target)


def test_downloads_are_in_the_audit_log(http: httpx.Client, client: Client, tmp_path: Path) -> None:
    job_id = job_steps.submit()
    write_checkpoint(job_id)
    whole = path(job_id, "files/model.safetensors")
    http.get(whole)
    ranges = ["bytes=0-99", "bytes=00-", "bytes=1-", "bytes=-9"]
    for each in ranges:
        http.get(whole, headers={"Range": each})
    http.head(whole)
    refused(http.get(path(job_id, "files/none")), 404)
    http.get(path(job_id, "archive"))
    (file := tmp_path / "rows.jsonl").write_text('{"question": "1 + 2?", "answer": "3"}\n')
    dataset = client.upload(file).id
    http.get(f"/v1/datasets/{dataset}/content")
    noted = [each for each in http.get("/v1/audit").json()["data"] if each["action"].startswith("GET")]
    expected = [f"/v1/datasets/{dataset}/content", path(job_id, "archive"), *[whole] * 5]
    assert [each["path"] for each in noted] == expected
    assert {(each["user"], each["project"]) for each in noted} == {("admin", "default")}
    assert [each["after"] for each in noted[2:]] == [*({"range": each} for each in reversed(ranges)), None]


def test_a_full_disk_of_the_database_does_not_stop_downloads(http: httpx.Client) -> None:
    job_id = job_steps.submit()
    write_checkpoint(job_id)
    http.get("/v1/me")  # the first use of the key is in the audit log
    full = "BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END"
    job_steps.run(f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $${full}$$")
    job_steps.run("CREATE TRIGGER full_disk BEFORE INSERT ON audit EXECUTE FUNCTION full_disk()")
    try:
        assert http.get(path(job_id, "files/model.safetensors")).status_code == 200
    finally:
        job_steps.run("DROP FUNCTION full_disk CASCADE")
    assert not any(each["action"].startswith("GET") for each in http.get("/v1/audit").json()["data"])


def test_a_service_that_names_other_places_is_not_followed(client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    job_id = job_steps.submit()
    write_checkpoint(job_id)
    found = client.checkpoint(job_id, 5)
    for name in ("../x", "/etc/x", "a/../../x", "..", "a\\..\\x", "x\n"):
        evil = found.model_copy(update={"files": [found.files[0].model_copy(update={"name": name})]})
        monkeypatch.setattr(client, "checkpoint", lambda *_, evil=evil: evil)
        with pytest.raises(CalibrlError, match="would not lie in the folder"):
            client.download_checkpoint(job_id, 5, tmp_path / "here")
