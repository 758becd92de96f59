"""Files that are packed for an upload: rows get the images that they name."""

import base64
import gzip
import json
import resource
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from calibrl.client import CalibrlError
from calibrl.client.packing import data_name, packed

from .conftest import DATASET_ID, Service, calibrl, dataset

PNG = b"\x89PNG\r\n\x1a\n of one picture"
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def folder(tmp_path: Path, *rows: dict[str, Any], name: str = "train.jsonl") -> Path:
    made = tmp_path / "mine"
    (made / "images").mkdir(parents=True)
    (made / "images/1.png").write_bytes(PNG)
    (made / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def rows_of(path: Path, **columns: str) -> list[dict[str, Any]]:
    with packed(path, columns) as made:
        return [json.loads(line) for line in made.read_text().splitlines()]


def test_images_beside_the_rows_are_put_into_the_rows(tmp_path: Path) -> None:
    asked = {"question": "images/1.png", "answer": "3"}
    turn = {"type": "image", "image": "images/1.png"}
    made = folder(
        tmp_path,
        {**asked, "image": "images/1.png"},
        {**asked, "images": ["images/1.png", {"path": "file://images/1.png"}]},
        {"messages": [{"role": "user", "content": [turn, {"type": "text", "text": "images/1.png"}]}]},
        {**asked, "pixels": "images/1.png", "image": URL, "choices": ["images/1.png", "\ud800"]},
    )
    first, second, chat, other = rows_of(made / "train.jsonl")
    assert first == {**asked, "image": URL}
    assert second["images"] == [URL, {"path": URL}]
    assert chat["messages"][0]["content"] == [{**turn, "image": URL}, {"type": "text", "text": "images/1.png"}]
    assert other["choices"] == ["images/1.png", "\ud800"]  # a text of another column
    assert (other["pixels"], other["image"]) == ("images/1.png", URL)
    assert rows_of(made / "train.jsonl", images="pixels")[3]["pixels"] == URL


@pytest.mark.parametrize("kind", ["folder", "zip", "csv", "gz", "list"])
def test_folders_archives_and_tables_become_lines(tmp_path: Path, kind: str) -> None:
    row = {"question": "Sum, of both?", "image": "images/1.png", "answer": "3"}
    made = folder(tmp_path, row)
    path = made / "train.jsonl"
    if kind == "csv":
        path = path.rename(made / "train.csv")
        path.write_text('question,image,answer,expert\n"Sum, of both?",images/1.png,3,\n')
    elif kind == "gz":
        path = path.rename(made / "train.jsonl.gz")
        path.write_bytes(gzip.compress(json.dumps(row).encode()))
    elif kind == "list":
        path.write_text(json.dumps([row], indent=1))
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
            for file in (path, made / "images/1.png"):
                archive.write(file, Path("mine") / file.relative_to(made))
            archive.writestr("__MACOSX/mine/._train.jsonl", b"\0")
        path = tmp_path / "mine.zip"
    else:
        path = made
    assert rows_of(path) == [{**row, "image": URL}]
    assert data_name(path) == ("mine" if kind in ("zip", "folder") else "train")


def test_rows_without_image_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = folder(tmp_path, {"question": "Sum?", "answer": "3"}) / "train.jsonl"
    path.write_bytes(path.read_bytes() + b"no json\n")
    (path.parent / "notes.txt").touch()
    other = path.with_name("other.jsonl")
    other.write_text('{"image": "notes.txt"}')  # not the name of an image
    parquet = path.with_name("rows.parquet")
    parquet.write_bytes(b"PAR1")
    for file in (path, other, parquet):
        with packed(file, {}) as made:
            assert made == file


def test_only_rows_with_image_files_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    made = folder(tmp_path, {"image": "images/1.png"})
    plain = made / "plain.jsonl"
    plain.write_text('{"question": "Sum?", "answer": "3"}\n')
    with packed(plain, {}):
        assert [file for file in temporary.rglob("*") if file.is_file()] == []
    with packed(made / "train.jsonl", {}) as complete:
        assert complete.is_relative_to(temporary)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # as on a full disk
        with pytest.raises(CalibrlError, match=f"cannot be written with their images to {temporary}.*File too large"):
            rows_of(made / "train.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_missing_images_and_paths_outside_the_folder_are_one_fault(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    made = folder(tmp_path, *({"image": name} for name in ("images/1.png", "../secret.png", "/etc/a.png", "none.png")))
    with pytest.raises(CalibrlError) as refused, packed(made, {}):
        pass
    (error,) = refused.value.errors
    assert error["field"] == "rows.2" and error["message"].startswith("image '../secret.png' is not a file in")
    assert error["message"].endswith("(the same fault: 2 more rows)")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"a,b\n1,2,3\n", "more cells in row 1 than columns"),
        ("a.csv", b"a\n\xff\n", "not text in UTF-8"),
        ("a.bin", b"", "without files that can be read"),
    ],
)
def test_a_folder_that_cannot_be_packed_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrlError, match=says), packed(tmp_path, {}):
        pass


def test_splits_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("question,answer\nq,a\n")
    with pytest.raises(CalibrlError, match=r"several splits \(test, train\)"), packed(tmp_path, {}):
        pass
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(CalibrlError, match=r"has both train.jsonl and test.csv"), packed(tmp_path, {}):
        pass
    damaged = tmp_path / "a.zip"
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.jsonl", "{}" * 1000)
    damaged.write_bytes(damaged.read_bytes().replace(b"train.jsonl", b"train.jsonx", 1))
    with pytest.raises(CalibrlError, match="cannot be unpacked"), packed(damaged, {}):
        pass


def test_an_upload_of_a_folder_sends_its_images(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/datasets/upload", dataset())
    made = folder(tmp_path, {"question": "Sum?", "image": "images/1.png", "answer": "3"})
    assert calibrl("data", "upload", made).stdout == f"{DATASET_ID}\n"
    assert (service.requests[-1].query["name"], service.requests[-1].body["image"]) == ("mine", URL)


def test_each_fault_of_a_refused_file_has_its_line(service: Service, tmp_path: Path) -> None:
    made = folder(tmp_path, {"question": "Sum?"})
    errors = [{"field": f"rows.{row}", "message": "has\nno answer"} for row in range(1, 31)]
    refusal = {"title": "Invalid request", "status": 422, "detail": "30 errors", "errors": errors}
    service.on("POST", "/v1/datasets/upload", (422, refusal))
    result = calibrl("data", "upload", made)
    lines = result.stderr.splitlines()
    assert lines[:2] == ["calibrl: Invalid request:", "  rows.1: has no answer"]
    assert (len(lines), lines[-1], result.exit_code) == (22, "  and 10 more", 2)
