"""Datasets over real HTTP: uploading, refusing, looking into, downloading, deleting."""

import base64
import gzip
import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.pictures import png
from tests.support.rest import named, refused, serving
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
UPLOAD = "/v1/datasets/upload"


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG file that says it has so many pixels, and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def row(**changes: Any) -> dict[str, Any]:
    return {
        "question": "<image>What is it?",
        "images": [coded(png())],
        "answer": "red",
        "expert": "It is red.",
    } | changes


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def parquet_file(rows: list[dict[str, Any]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def upload(http: httpx.Client, content: bytes, **params: str) -> httpx.Response:
    return http.post(UPLOAD, content=content, params={"name": "mine", **params})


def uploaded(http: httpx.Client, content: bytes | None = None, **params: str) -> dict[str, Any]:
    answer = upload(http, jsonl(row(), row(question="And?", images=[], expert=None)) if content is None else content)
    assert answer.status_code == 201, answer.text
    dataset: dict[str, Any] = answer.json()
    return dataset


def kept_files(folder: Path) -> list[str]:
    """Return all files of uploads that the server has on disk."""
    places = (folder / "storage", folder / "uploads")
    return sorted(path.name for place in places for path in place.rglob("*") if path.is_file())


def test_a_file_is_kept_described_and_given_back(http: httpx.Client, tmp_path: Path) -> None:
    content = jsonl(row(), row(question="And?", images=[], expert=None))
    answer = upload(http, content)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{dataset['id']}"
    described = {
        "project": "default",
        "user": "admin",
        "name": "mine",
        "format": "jsonl",
        "rows": 2,
        "has_experts": True,
    }
    described |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "hub": None}
    assert described.items() <= dataset.items()
    assert dataset["has_columns"] == ["answer", "expert", "images", "question"]
    assert (dataset["row_format"], dataset["unused_columns"]) == ("the plain format", [])
    assert http.get(answer.headers["location"]).json() == dataset
    assert http.get("/v1/datasets").json() == {"data": [dataset], "has_more": False}
    whole = http.get(f"{answer.headers['location']}/content")
    assert whole.content == content
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''mine.jsonl"
    assert kept_files(tmp_path) == [f"{dataset['id']}.jsonl"]


def test_a_compressed_list_of_rows_is_read_and_unused_columns_are_named(http: httpx.Client) -> None:
    content = gzip.compress(json.dumps([row(note="n"), row()], indent=1).encode())
    dataset = upload(http, content).json()
    assert (dataset["rows"], dataset["unused_columns"]) == (2, ["note"])


def test_the_row_format_can_be_chosen_at_the_upload(http: httpx.Client) -> None:
    content = jsonl(row(qid="7"))
    detected = upload(http, content).json()
    answer = upload(http, content, format="plain")
    chosen = answer.json()
    assert (detected["read_as"], detected["row_format"]) == ("auto", "ViRL39K's format")
    assert (answer.status_code, chosen["read_as"], chosen["row_format"]) == (201, "plain", "the plain format")
    again = upload(http, content, format="plain")
    assert (again.status_code, again.json()["id"]) == (200, chosen["id"])
    refusal = upload(http, content, format="none").json()
    assert [error["field"] for error in refusal["errors"]] == ["format"]


def test_parquet_with_images_and_columns_under_other_names(http: httpx.Client) -> None:
    rows = [{"problem": "<image>q", "image": {"bytes": png("blue", 500), "path": None}, "result": 3}]
    given = {"question": "problem", "images": "image", "answer": "result"}
    dataset = upload(http, parquet_file(rows), **given).json()
    assert dataset["format"] == "parquet"
    assert dataset["columns"] == {**given, "expert": "expert"}
    assert not dataset["has_experts"]
    preview = http.get(f"/v1/datasets/{dataset['id']}/preview").json()
    (shown,) = preview["data"]
    assert (shown["row"], shown["question"], shown["answer"], shown["image_count"]) == (1, "<image>q", "3", 1)
    (address,) = shown["images"]
    with Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))) as small:
        assert (small.format, small.size, small.getpixel((0, 0))) == ("PNG", (192, 192), (0, 0, 255))


def test_a_form_carries_a_file_and_its_name(http: httpx.Client, tmp_path: Path) -> None:
    content = jsonl(*(row(answer=str(number)) for number in range(500)))
    answer = http.post(UPLOAD, files={"file": ("../../etc/My set (1).jsonl", content)})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["name"], dataset["rows"]) == ("My set -1-", 500)
    assert dataset["sha256"] == hashlib.sha256(content).hexdigest()
    assert kept_files(tmp_path) == [f"{dataset['id']}.jsonl"]
    assert http.get(f"/v1/datasets/{dataset['id']}/content").content == content
    assert named(http.post(UPLOAD, files={"other": ("x.jsonl", content)})) == ["other"]
    assert named(http.post(UPLOAD, files=[("file", ("x", content)), ("file", ("y", content))])) == ["file"]
    assert named(http.post(UPLOAD, data={"name": "x"}, files={"file": ("x", content)})) == ["name"]
    kind = {"Content-Type": "multipart/form-data; boundary=abc"}
    refused(http.post(UPLOAD, content=b"no form at all", headers=kind), 400)
    refused(http.post(UPLOAD, content=b"--abc\r\n", headers=kind), 400)
    refused(http.post(UPLOAD, content=b"", headers={"Content-Type": "multipart/form-data"}), 400)
    assert kept_files(tmp_path) == [f"{dataset['id']}.jsonl"]


def test_the_same_content_is_the_same_dataset(http: httpx.Client, tmp_path: Path) -> None:
    content = jsonl(row())
    first, again = upload(http, content), upload(http, content, name="other")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert http.put("/v1/projects/other", json={}).status_code == 200
    elsewhere = upload(http, content, project="other")
    assert elsewhere.status_code == 201
    assert elsewhere.json()["id"] != first.json()["id"]
    assert upload(http, content, question="question", expert="answer").status_code == 201  # read otherwise
    assert len(kept_files(tmp_path)) == 3


def test_all_bad_rows_are_named_and_nothing_is_kept(http: httpx.Client, tmp_path: Path) -> None:
    bad = [row(answer=None), row(images="figures/1.png"), row(images="/etc/passwd"), row(images=[coded(b"no image")])]
    good = row()
    lines = jsonl(good, *bad, good) + b"{broken\n" + jsonl(good)
    problem = refused(upload(http, lines), 422)
    assert problem["detail"] == "The file has 5 errors."
    assert [error["field"] for error in problem["errors"]] == [f"rows.{number}" for number in (2, 3, 5, 7)]
    messages = [error["message"] for error in problem["errors"]]
    assert "column 'answer'" in messages[0]
    assert "paths are not read here" in messages[1] and messages[1].endswith("(the same fault: 1 more row)")
    assert "none of PNG" in messages[2]
    assert "not JSON" in messages[3]
    many = refused(upload(http, jsonl(*(row(answer=None) for _ in range(200)))), 422)
    assert [error["message"].endswith("(the same fault: 199 more rows)") for error in many["errors"]] == [True]
    assert many["detail"] == "The file has 200 errors."
    assert str(tmp_path) not in json.dumps([problem, many])
    assert kept_files(tmp_path) == []
    assert http.get("/v1/datasets").json()["data"] == []


def truncated() -> bytes:
    return png(size=200)[:-40]


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        (jsonl(row(images=[coded(bomb())])), "rows.1", "pixels"),
        (jsonl(row(images=[coded(bomb(8000, 8000))])), "rows.1", "8000 x 8000 pixels"),
        (jsonl(row(images=[coded(truncated())])), "rows.1", "damaged or incomplete"),
        (jsonl(row(images=[coded(b"GIF89a" + bytes(100))])), "rows.1", "damaged or incomplete"),
        (jsonl(row(images=[coded(b"%!PS-Adobe-3.0 EPSF-3.0\n")])), "rows.1", "an EPS drawing"),
        (jsonl(row(images=[{"path": "/etc/passwd"}])), "rows.1", "paths are not read here"),
        (jsonl(row(images=["mine.jsonl"])), "rows.1", "paths are not read here"),
        (b'{"question": "q", "answer": "a", "x": ' + b"[" * 100_000, "file", "nested too deep"),
        (b'{"question": "' + b"q" * 2**25 + b'", "answer": "a"}', "file", "a line of more than 32 MiB"),
        (jsonl({"asked": "q", "reply": "a"}), "file", "no known form"),
        (gzip.compress(jsonl(row()))[:-20], "file", "broken or cut off"),
        (b"", "file", "has no rows"),
        (b"PAR1", "file", "not a readable Parquet file"),
        (b"PAR1" + bytes(1000) + b"\xff\xff\xff\x7fPAR1", "file", "not a readable Parquet file"),
        (parquet_file([row()])[:-20] + b"PAR1", "file", "not a readable Parquet file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dataset_unusable_for_training_is_refused(
    http: httpx.Client, tmp_path: Path, content: bytes, field: str, says: str
) -> None:
    problem = refused(upload(http, content), 422)
    assert problem["errors"][0]["field"] == field
    assert says in problem["errors"][0]["message"]
    assert kept_files(tmp_path) == []


def test_a_too_long_body_is_refused_while_it_is_read(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIBRL_MAX_UPLOAD_BYTES", "3000000")
    get_settings.cache_clear()
    with serving() as http:
        big = jsonl(*(row(question="q" * 1_000_000, images=[]) for _ in range(2)))
        assert upload(http, big).status_code == 201  # more than any JSON may be
        refused(http.post(UPLOAD, content=b"x" * 3_000_001, params={"name": "x"}), 413)
        pieces = (b"x" * 100_000 for _ in range(31))
        refused(http.post(UPLOAD, content=pieces, params={"name": "x"}), 413)  # without a Content-Length header
        refused(http.post("/v1/datasets", content=b'{"name": "' + b"x" * 1_000_001), 413)
        assert len(kept_files(tmp_path)) == 1


def test_wrong_parameters_are_named(http: httpx.Client) -> None:
    assert named(upload(http, jsonl(row()), name="../x")) == ["name"]
    assert named(http.post(UPLOAD, content=jsonl(row()))) == ["name"]
    assert named(upload(http, jsonl(row()), project="none")) == ["project"]
    assert named(upload(http, jsonl(row()), what="ever")) == ["what"]
    assert named(http.post("/v1/datasets", json={"name": "x", "hub": "no-slash"})) == ["hub"]
    assert named(http.post("/v1/datasets", json={"name": "x", "hub": "a/b", "project": "none"})) == ["project"]


def test_hub_datasets_are_registered_without_a_download(http: httpx.Client) -> None:
    given = {"name": "geometry", "hub": "hiyouga/geometry3k", "split": "train", "revision": "main"}
    first, again = http.post("/v1/datasets", json=given), http.post("/v1/datasets", json=given)
    assert (first.status_code, again.status_code) == (201, 200)
    dataset = first.json()
    assert dataset == again.json()
    assert dataset["hub"]["hub"] == "hiyouga/geometry3k"
    assert dataset["rows"] is dataset["sha256"] is dataset["format"] is None
    for part in ("preview", "content"):
        assert "huggingface.co" in refused(http.get(f"/v1/datasets/{dataset['id']}/{part}"), 409)["detail"]
    begins = dataset["id"][:8].upper()
    for wanted, count in (({"q": "OMETR"}, 1), ({"q": "%"}, 0), ({"q": begins}, 1), ({"user": "ada"}, 0)):
        assert len(http.get("/v1/datasets", params={"user": dataset["user"], **wanted}).json()["data"]) == count
    assert http.delete(f"/v1/datasets/{dataset['id']}").status_code == 204


def test_pages_go_from_new_to_old(http: httpx.Client) -> None:
    assert http.put("/v1/projects/other", json={}).status_code == 200
    ids = [upload(http, jsonl(row(answer=str(number)))).json()["id"] for number in range(3)]
    other = upload(http, jsonl(row()), project="other").json()["id"]
    first = http.get("/v1/datasets", params={"limit": 3}).json()
    assert [one["id"] for one in first["data"]] == [other, ids[2], ids[1]]
    assert first["has_more"]
    rest = http.get("/v1/datasets", params={"limit": 3, "after": ids[1]}).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    assert [one["id"] for one in http.get("/v1/datasets?project=other").json()["data"]] == [other]
    assert named(http.get(f"/v1/datasets?after={'0' * 8}-0000-0000-0000-{'0' * 12}")) == ["after"]


def test_ranges_of_the_content(http: httpx.Client) -> None:
    content = jsonl(*(row(answer=str(number)) for number in range(30)))
    dataset = upload(http, content).json()
    path, size = f"/v1/datasets/{dataset['id']}/content", len(content)

    def asked(range_: str, **headers: str) -> httpx.Response:
        return http.get(path, headers={"Range": range_, **headers})

    for text, start, end in (("0-0", 0, 1), ("5-99", 5, 100), ("100-", 100, size), ("-7", size - 7, size)):
        part = asked(f"bytes={text}")
        assert (part.status_code, part.content) == (206, content[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    assert asked(f"bytes=0-{size * 2}").content == content
    for text in ("bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b"):
        assert (asked(text).status_code, asked(text).content) == (200, content)
    for text in (f"bytes={size}-", "bytes=-0"):
        beyond = asked(text)
        refused(beyond, 416)
        assert beyond.headers["content-range"] == f"bytes */{size}"
    tag = http.head(path).headers["etag"]
    assert tag == f'"{dataset["sha256"]}"'
    assert asked("bytes=0-3", **{"If-Range": tag}).status_code == 206
    assert asked("bytes=0-3", **{"If-Range": '"other"'}).status_code == 200
    assert http.get(path, headers={"If-None-Match": tag}).status_code == 304
    head = http.head(path, headers={"Range": "bytes=0-3"})
    assert (head.status_code, head.headers["content-length"], head.content) == (206, "4", b"")


def test_a_dataset_in_use_is_not_deleted(http: httpx.Client, tmp_path: Path) -> None:
    dataset = uploaded(http)
    job = job_steps.submit(data={"dataset": dataset["id"]})
    assert str(job) in refused(http.delete(f"/v1/datasets/{dataset['id']}"), 409)["detail"]
    job_steps.cancel(job)
    assert http.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    refused(http.get(f"/v1/datasets/{dataset['id']}"), 404)
    refused(http.delete(f"/v1/datasets/{dataset['id']}"), 404)
    eventually(lambda: kept_files(tmp_path) == [])  # once it is answered
    assert job_steps.status(job) == "cancelled"


def test_jobs_use_only_datasets_of_their_project(http: httpx.Client) -> None:
    assert http.put("/v1/projects/other", json={}).status_code == 200
    dataset = uploaded(http)
    no_experts = upload(http, jsonl(row(expert=None))).json()
    spec = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "steps": 1}
    missing = {"dataset": "00000000-0000-0000-0000-000000000000"}
    mine = {"dataset": dataset["id"]}

    def fields(**changes: Any) -> list[str]:
        return named(http.post("/v1/jobs", json=spec | changes))

    assert fields(data=missing, validation={"data": missing}) == ["data.dataset", "validation.data.dataset"]
    assert fields(data=mine, project="other") == ["data.dataset"]
    assert fields(data={"dataset": no_experts["id"]}) == ["data.dataset"]
    assert fields(data={"dataset": "x"}) == ["data.dataset"]
    assert fields(data=mine | {"split": "train"}) == ["data.split"]
    evaluate = {"kind": "evaluate", "name": "x", "models": [{"builtin": "tiny-vlm"}], "data": [mine, missing]}
    assert named(http.post("/v1/jobs", json=evaluate)) == ["data.1.dataset"]
    assert named(http.post("/v1/jobs", json=evaluate | {"data": [mine, mine]})) == ["data.1"]
    answer = http.post("/v1/jobs", json=spec | {"data": mine, "validation": {"data": mine, "samples": 1}})
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["data"].items() >= {"dataset": dataset["id"], "answer": None, "rows": None}.items()


def test_datasets_can_be_kept_in_storage_other_than_a_folder(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIBRL_STORAGE", "memory://bucket/prefix")
    get_settings.cache_clear()
    memory = fsspec.filesystem("memory")
    with serving() as http:
        content = jsonl(row())
        dataset = upload(http, content).json()
        assert memory.find("/bucket") == [f"/bucket/prefix/datasets/{dataset['id']}.jsonl"]
        assert kept_files(tmp_path) == []
        part = http.get(f"/v1/datasets/{dataset['id']}/content", headers={"Range": "bytes=3-9"})
        assert part.content == content[3:10]
        assert http.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
        eventually(lambda: memory.find("/bucket") == [])  # once it is answered


def test_an_upload_holds_no_open_transaction(http: httpx.Client, tmp_path: Path) -> None:
    """The transaction begins after the last byte: the database ends idle transactions and limits connections."""
    content = jsonl(row())

    def slow() -> Iterator[bytes]:
        yield content[:10]
        eventually(lambda: list(tmp_path.rglob("*.partial")))
        others = "datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in%'"
        assert job_steps.run_count(f"SELECT count(*) FROM pg_stat_activity WHERE {others}") == 0
        yield content[10:]

    for status in (201, 200):
        answer = http.post(UPLOAD, params={"name": "slow"}, content=slow(), headers={"Idempotency-Key": "once"})
        assert answer.status_code == status, answer.text
