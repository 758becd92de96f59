"""Forms of data files: JSON of every kind, compressed or not, and folders; others are refused in a sentence."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from calibrl_core import data
from calibrl_core.data import files, json_rows, readers, shards
from calibrl_core.data.files import check_source, count_rows
from calibrl_core.data.schema import DataError, FileData

ROWS = [{"question": "q1", "answer": "1"}, {"question": 'q2 ä\\"', "answer": "2"}, {"question": "q3", "answer": "3"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
INDENTED = json.dumps(ROWS, indent=1).encode()


def zstd(content: bytes) -> bytes:
    compressed: bytes = pyarrow.Codec("zstd").compress(content).to_pybytes()
    return compressed


FORMS = {
    "lines.jsonl": LINES,
    "no end.jsonl": LINES.rstrip(),
    "blank lines.jsonl": b"\n" + LINES.replace(b"\n", b"\n \t\n\n"),
    "bom.jsonl": b"\xef\xbb\xbf" + LINES,
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n"),
    "UPPER.JSONL": LINES,
    "list.jsonl": INDENTED,
    "list.json": json.dumps(ROWS).encode(),
    "bom list.json": b"\xef\xbb\xbf\r\n" + INDENTED.replace(b"\n", b"\r\n"),
    "indented objects.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "objects with commas.json": ",\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "lines.ndjson": LINES,
    "lines.jsonl.gz": gzip.compress(LINES),
    "list.json.GZ": gzip.compress(INDENTED),
    "lines.jsonl.zst": zstd(LINES),
    "frames.jsonl.zst": zstd(LINES[:40]) + zstd(LINES[40:]),
    "members.jsonl.gz": gzip.compress(LINES[:40]) + gzip.compress(LINES[40:]),
    "no suffix of gzip.jsonl": gzip.compress(LINES),
}


def source(tmp_path: Path, name: str, content: bytes) -> FileData:
    (tmp_path / name).write_bytes(content)
    return FileData(path=str(tmp_path / name))


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_each_form_has_the_same_rows(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(tmp_path, name, FORMS[name])
    monkeypatch.setattr(json_rows, "_CHUNK", 7)  # values are cut anywhere
    assert check_source(made, needs_experts=False) == []
    found = data.load(made)
    assert [(one.question, one.answer) for one in found] == [(row["question"], row["answer"]) for row in ROWS]
    assert count_rows(made) == 3
    assert found[0].id == f"{name.partition('.')[0]}/1"


def refusal(made: FileData) -> str:
    (problem,) = check_source(made, needs_experts=False)
    with pytest.raises(DataError) as caught:
        data.load(made)
    assert str(caught.value) == problem
    return problem.removeprefix(made.path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", INDENTED[:-1], " is a JSON list that is cut off after entry 3: copy it again"),
        (
            "a.json",
            b'[{"question": "q", "answer": "1"}, {bad: 1}, ' + b" " * 50,
            "entry 2 of the JSON document is not JSON",
        ),
        ("a.json", b'[{"question": "q", "answer": "1"}, 7]', ", row 2: the line is not an object with columns"),
        ("a.jsonl", LINES.decode().encode("utf-16"), " is text in UTF-16: save it as UTF-8"),
        ("a.jsonl.gz", gzip.compress(LINES * 50, mtime=0)[:60], "is compressed, and broken or cut off"),
        ("a.jsonl.zst", zstd(LINES * 50)[:40], "is compressed, and broken or cut off"),
        ("a.jsonl", b"PK\x03\x04" + LINES, " is a zip archive: unpack it"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.jsonl", b"question,answer\nq,1\n" * 30, " is not a file of JSON rows: the line is not JSON: "),
        ("a.json", b"[" * 100_000, "entry 1 is nested too deep"),
        ("a.jsonl", b"", " has no rows"),
        ("a.json", b"[]", " has no rows"),
    ],
)
def test_what_is_not_read_is_refused_in_one_sentence(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    text = refusal(source(tmp_path, name, content))
    assert problem in text and "\n" not in text and text.count("a.json") == 0


def test_a_long_entry_is_refused_before_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 2**20)
    monkeypatch.setattr(json_rows, "_CHUNK", 2**16)
    text = json.dumps([{"question": "q", "answer": "x" * 2**22}]).encode()
    assert "entry 1 has more than 1 MiB; use Parquet" in refusal(source(tmp_path, "a.json", text))
    assert "has a line of more than 1 MiB; use Parquet" in refusal(source(tmp_path, "a.jsonl", text[1:-1]))


def test_empty_lines_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 1000)
    for content in (b"\n" * 9000 + LINES, LINES + b" \n" * 2000 + LINES):
        assert "MiB of empty lines: remove them" in refusal(source(tmp_path, "a.jsonl", content))


def test_rows_that_take_too_long_to_count_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "COUNT_SECONDS", -1.0)
    assert count_rows(source(tmp_path, "a.jsonl", LINES)) is None
    parquet(tmp_path / "a.parquet", *ROWS)
    assert count_rows(FileData(path=str(tmp_path / "a.parquet"))) == 3


def parquet(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def test_a_folder_of_shards_is_read_by_name(tmp_path: Path, png: bytes) -> None:
    folder = tmp_path / "shards"
    parquet(folder / "data/train-00001.PARQUET", ROWS[2])
    parquet(folder / "data/train-00000.parquet", *ROWS[:2])
    (folder / "dataset_info.json").write_text("{}")
    (folder / "README.md").write_text("About")
    (folder / ".cache").mkdir()
    (folder / ".cache/x.jsonl").write_text("{}")
    made = FileData(path=str(folder))
    assert check_source(made, needs_experts=False) == []
    assert [one.id for one in data.load(made)] == ["shards/1", "shards/2", "shards/3"]
    assert [one.question for one in data.load(made)] == [row["question"] for row in ROWS]
    assert count_rows(made) == 3
    assert len(data.load(made.model_copy(update={"rows": 1}))) == 1


def test_files_beside_the_shards_do_not_count_as_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_FILES", 2)
    (tmp_path / "a.jsonl").write_bytes(LINES)
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / name).touch()
    assert len(data.load(FileData(path=str(tmp_path)))) == 3
    for name in ("b.jsonl", "c.jsonl"):
        (tmp_path / name).write_bytes(LINES)
    with pytest.raises(DataError, match="is a folder with more than 2 data files"):
        data.load(FileData(path=str(tmp_path)))


def test_image_paths_of_shards_are_relative_to_the_folder(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(png)
    parquet(tmp_path / "data/a.parquet", {"question": "q", "answer": "1", "image_path": "images/1.png"})
    assert data.load(FileData(path=str(tmp_path)))[0].images == (png,)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a.csv"], "is a folder without files that can be read"),
        (["a.jsonl", "b.parquet"], "is a folder with JSON and Parquet files"),
        (["train-0.jsonl", "data/test-0.jsonl"], "is a folder with several splits (test, train)"),
        (["train/0.jsonl", "val/0.jsonl"], "is a folder with several splits (train, validation)"),
    ],
)
def test_an_ambiguous_folder_is_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    assert problem in refusal(FileData(path=str(tmp_path)))


def test_a_bad_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl").write_bytes(b"PK\x03\x04")
    assert refusal(FileData(path=str(tmp_path))) == "/b.jsonl is a zip archive: unpack it"


@pytest.mark.parametrize(
    ("number", "text"),
    [("18.00", "18"), ("0.50", "0.5"), ("-3.10", "-3.1"), ("100.00", "100"), ("0.00", "0")],
)
def test_a_decimal_answer_is_the_number_that_it_is(tmp_path: Path, number: str, text: str) -> None:
    parquet(tmp_path / "a.parquet", {"question": "q", "answer": Decimal(number)})
    parquet(
        tmp_path / "b.parquet",
        {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": [Decimal(number)]}},
    )
    assert [data.load(FileData(path=str(tmp_path / name)))[0].answer for name in ("a.parquet", "b.parquet")] == [
        text
    ] * 2


@pytest.mark.parametrize(("most", "parsed"), [(10**6, len(ROWS)), (1, 1)], ids=["all", "large"])
def test_each_line_is_parsed_once_and_large_ones_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, parsed: int
) -> None:
    lines: list[Any] = []

    def counted(raw: Any) -> dict[str, Any]:
        lines.append(raw)
        return readers.parse_row(raw)

    monkeypatch.setattr(files, "parse_row", counted)
    monkeypatch.setattr(files, "BATCH_BYTES", most)
    rows = files.read_examples(source(tmp_path, "a.jsonl", LINES))
    next(rows)
    assert len(lines) == parsed
    assert len([*rows]) == len(ROWS) - 1 and len(lines) == len(ROWS)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"data": ROWS}, "is one object with a list in 'data': if these are the rows, write them as a list, or one"),
        ({"version": "1.1", "data": ROWS}, "is one object with a list in 'data': if these are the rows"),
        ({"1": ROWS[0], "2": ROWS[1]}, "is one object of 2 objects, such as '1': if these are the rows, write them as"),
        ({"talk": [{"role": "user", "content": "q"}]}, "has the columns 'talk', which fit no known format"),
        ({"data": [], "name": "x"}, "has the columns 'data', 'name', which fit no known format"),
    ],
)
def test_rows_in_an_object_are_recognised(tmp_path: Path, document: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        data.load(source(tmp_path, "all.json", json.dumps(document, indent=1).encode()))


def test_an_object_with_too_many_rows_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MOST_COLUMNS", 2)
    made = source(tmp_path, "all.json", json.dumps({str(number): ROWS[0] for number in range(3)}).encode())
    with pytest.raises(DataError, match="has 3 columns; the limit is 2: use fewer, or write each as a row if they are"):
        data.load(made)
