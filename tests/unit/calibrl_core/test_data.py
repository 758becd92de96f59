"""Files of the plain form with good and bad rows, their images, and prompts."""

import base64
import io
import json
import re
import struct
import weakref
import zlib
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calibrl_core import data
from calibrl_core.data import files, image_decoding
from calibrl_core.data.files import check_source
from calibrl_core.data.prompts import INSTRUCTION, messages
from calibrl_core.data.schema import Columns, DataError, Example, FileData, Turn


def write(path: Path, rows: list[Any]) -> FileData:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path))


def test_files_give_the_same_rows_for_paths_bytes_and_base64(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    encoded = base64.b64encode(png).decode()
    rows = [
        {"question": "q", "answer": 3, "images": "a.png", "expert": "e"},
        {"question": "q", "answer": "3", "images": [encoded, f"data:image/png;base64,{encoded}"]},
        {"question": "q", "answer": "3"},
    ]
    found = data.load(write(tmp_path / "own.jsonl", rows))
    assert [len(one.images) for one in found] == [1, 2, 0]
    assert all(image == png for one in found for image in one.images)
    assert [one.expert for one in found] == ["e", None, None]
    assert [one.id for one in found] == ["own/1", "own/2", "own/3"]
    table = pyarrow.Table.from_pylist([{"problem": "q", "images": [{"bytes": png, "path": None}], "answer": "3"}])
    pyarrow.parquet.write_table(table, tmp_path / "own.parquet")
    source = FileData(path=str(tmp_path / "own.parquet"), columns=Columns(question="problem"))
    assert data.load(source)[0].images == (png,)


def test_the_rows_that_the_guide_shows_are_read(tmp_path: Path, png: bytes) -> None:
    guide = (Path(__file__).parents[3] / "docs/how-to/data-formats.md").read_text()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/1.png").write_bytes(png)
    plain, verl, chat = re.findall(r"```jsonl\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "plain.jsonl").write_text(plain)
    (tmp_path / "verl.jsonl").write_text(verl)
    (tmp_path / "chat.jsonl").write_text(chat.replace("iVBORw0...", base64.b64encode(png).decode()))
    first, second = data.load(FileData(path=str(tmp_path / "plain.jsonl")))
    (third,) = data.load(FileData(path=str(tmp_path / "verl.jsonl")))
    (fourth,) = data.load(FileData(path=str(tmp_path / "chat.jsonl")))
    assert first.images == third.images == fourth.images == (png,) and second.images == ()
    assert first.expert == third.expert == fourth.expert
    assert first.answer == third.answer == fourth.answer == "65"
    assert third.earlier == fourth.earlier == (Turn("system", "Answer briefly."),)


def test_every_bad_row_is_named_at_once(tmp_path: Path) -> None:
    source = write(
        tmp_path / "bad.jsonl",
        [
            {"question": "", "answer": "1"},
            {"question": "q", "answer": "1"},
            {"question": "q"},
            {"question": "q", "answer": "1", "images": "../secret.png"},
            {"question": "q", "answer": "1", "images": base64.b64encode(b"no image").decode()},
        ],
    )
    with pytest.raises(DataError) as caught:
        data.load(source)
    assert all(f"bad.jsonl, row {row}:" in str(caught.value) for row in (1, 3, 4, 5))
    assert "row 2:" not in str(caught.value)


def test_a_wrong_name_is_reported_once_with_the_existing_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [{"frage": "q", "answer": "1"}] * 30)
    (problem,) = check_source(source, needs_experts=False)
    assert problem.count("own.jsonl") == 1 and "'answer', 'frage'" in problem and "row" not in problem.split("rows")[0]
    named = source.model_copy(update={"columns": Columns(question="frage")})
    assert len(data.load(named)) == 30
    mistyped = source.model_copy(update={"columns": Columns(question="fragw", answer="answr")})
    with pytest.raises(DataError) as caught:
        data.load(mistyped)
    assert str(caught.value) == (
        f"{source.path} has no column 'fragw' and 'answr', which `columns` names; it has 'answer', 'frage'"
    )


@pytest.mark.parametrize("field", ["images", "expert"])
def test_a_named_column_may_be_empty_in_a_row_but_not_be_absent_from_all(
    tmp_path: Path, png: bytes, field: str
) -> None:
    row = {"question": "q", "answer": "1"}
    late = [row] * 60 + [row | {"own": base64.b64encode(png).decode()}]  # far behind the first rows
    source = write(tmp_path / "own.jsonl", late).model_copy(update={"columns": Columns(**{field: "own"})})
    assert len(data.load(source)) == 61
    with pytest.raises(DataError) as caught:
        data.load(source.model_copy(update={"columns": Columns(**{field: "onw"})}))
    assert str(caught.value) == (
        f"{source.path} has no column 'onw', which columns.{field} names; it has 'answer', 'own', 'question'"
    )


def test_a_column_named_image_is_found_too(tmp_path: Path, png: bytes) -> None:
    row = {"question": "q", "answer": "1", "image": base64.b64encode(png).decode()}
    assert data.load(write(tmp_path / "own.jsonl", [row]))[0].images == (png,)


def test_more_tags_than_images_is_a_rows_problem(tmp_path: Path, png: bytes) -> None:
    encoded = base64.b64encode(png).decode()
    rows = [
        {"question": "<image> and <image>?", "answer": "1", "images": [encoded, encoded]},
        {"question": "<image> and <image>?", "answer": "1", "images": encoded},
        {"question": "and?", "answer": "1", "images": encoded},
    ]
    with pytest.raises(DataError) as caught:
        data.load(write(tmp_path / "own.jsonl", rows))
    assert str(caught.value).endswith(
        "own.jsonl, row 2: the prompt has 2 <image> tags, but the row has 1 images: add the missing images or remove "
        "tags"
    )


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), True, None, "", ["1", "2"]])
def test_an_answer_that_nothing_equals_is_a_rows_problem(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(DataError, match="row 1: column 'answer'"):
        data.load(write(tmp_path / "own.jsonl", [{"question": "q", "answer": answer}]))


@pytest.mark.parametrize("name", ["日本.png", "a\x00.png", "A" * 300, "loop.png", "\ud800.png"])
def test_an_image_that_is_neither_file_nor_base64_is_a_rows_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": name}])
    (problem,) = check_source(source, needs_experts=False)
    assert problem.startswith(f"{source.path}, row 1: ")
    with pytest.raises(DataError, match="row 1:"):
        data.load(source)


def test_base64_too_long_for_a_name_is_read(tmp_path: Path) -> None:
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text("note", "A" * 300)
    Image.new("RGB", (4, 4), "red").save(buffer, format="PNG", pnginfo=note)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    assert max(map(len, encoded.split("/"))) > 255 and len(encoded) < 1024
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": encoded}])
    assert data.load(source)[0].images == (buffer.getvalue(),)


@pytest.mark.parametrize("cut", [2, 200])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_cut_short_is_a_rows_problem(tmp_path: Path, form: str, cut: int) -> None:
    buffer = io.BytesIO()
    Image.radial_gradient("L").save(buffer, format=form)
    cut += 12 * (form == "PNG")  # its last chunk has no pixels
    (tmp_path / "cut").write_bytes(buffer.getvalue()[:-cut])
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": "cut"}])
    assert "row 1: the image" in check_source(source, needs_experts=False)[0]


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG: its size is known, and there are no pixels to decode."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    large = base64.b64encode(png_header(8_000, 7_000)).decode()
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": large}])
    (problem,) = check_source(source, needs_experts=False)
    assert problem.endswith("row 1: the image has 8000 x 7000 pixels; the limit is 50 million: make it smaller")


def test_the_most_pixels_are_allowed(tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": base64.b64encode(png).decode()}])
    monkeypatch.setattr(image_decoding, "MOST_PIXELS", 16)
    assert check_source(source, needs_experts=False) == []
    monkeypatch.setattr(image_decoding, "MOST_PIXELS", 15)
    assert "4 x 4 pixels" in check_source(source, needs_experts=False)[0]


def test_invalid_lines_are_named_with_the_other_bad_rows(tmp_path: Path) -> None:
    good = b'{"question": "q", "answer": "1"}\n'
    (tmp_path / "x.jsonl").write_bytes(b"{not json}\n" + good + b'"text"\n{"question": ""}\n' + good)
    source = FileData(path=str(tmp_path / "x.jsonl"))
    (problem,) = check_source(source, needs_experts=False)
    assert all(f"row {row}:" in problem for row in (1, 3, 4))
    assert not any(f"row {row}:" in problem for row in (2, 5))
    source = FileData(path=str(tmp_path / "x.jsonl"), rows=2)
    assert "row 3:" not in check_source(source, needs_experts=False)[0]


def test_a_file_that_can_not_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.symlink_to("/proc/self/mem")  # no one can read its beginning, not even root
    (problem,) = check_source(FileData(path=str(path)), needs_experts=False)
    assert problem.startswith(f"{path} cannot be read: ")


def test_a_submission_waits_for_the_first_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, png: bytes
) -> None:
    plain = {"question": "q", "answer": "1", "images": base64.b64encode(png).decode()}
    source = write(tmp_path / "x.jsonl", [plain, plain, plain | {"expert": "e"}, {}])
    monkeypatch.setattr(files, "CHECKED_ROWS", 2)
    assert check_source(source, needs_experts=True) == []  # the rest, with what it lacks, is the trainer's to check
    with pytest.raises(DataError, match="row 4:"):
        data.load(source)
    monkeypatch.setattr(files, "CHECKED_ROWS", 3)
    monkeypatch.setattr(files, "CHECKED_IMAGE_BYTES", len(png) + 1)
    assert check_source(source, needs_experts=True) == []
    monkeypatch.setattr(files, "CHECKED_IMAGE_BYTES", 10 * len(png))
    monkeypatch.setattr(files, "CHECKED_ROWS", 4)
    assert "row 4:" in check_source(source, needs_experts=True)[0]


def test_a_check_keeps_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one example exists at a time."""
    alive = weakref.WeakSet[Example]()
    most: list[int] = []
    make = files._example

    def watched(*arguments: Any) -> Example:
        most.append(len(alive))
        example = make(*arguments)
        alive.add(example)
        return example

    monkeypatch.setattr(files, "_example", watched)
    rows = [{"question": f"q{number}", "answer": "1"} for number in range(50)]
    assert check_source(write(tmp_path / "x.jsonl", rows), needs_experts=False) == []
    assert len(most) == 50 and max(most) <= 1


@pytest.mark.parametrize("content", [b"", b"{not json}\n", b'"text"\n', b"\xff\xfe\n"])
def test_a_file_that_is_not_jsonl_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    (problem,) = check_source(FileData(path=str(tmp_path / "x.jsonl")), needs_experts=False)
    assert "x.jsonl" in problem


def test_faults_that_keep_a_file_from_training(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jsonl", [{"question": "q", "answer": "1"}])
    assert check_source(plain, needs_experts=False) == []
    assert "expert" in check_source(plain, needs_experts=True)[0]
    assert "does not exist" in check_source(FileData(path=str(tmp_path / "no.jsonl")), needs_experts=False)[0]
    assert "neither" in check_source(FileData(path=str(tmp_path / "x.csv")), needs_experts=False)[0]
    (tmp_path / "x.parquet").write_bytes(b"PAR0")
    assert "Parquet" in check_source(FileData(path=str(tmp_path / "x.parquet")), needs_experts=False)[0]


def kinds(question: str, images: int) -> list[str]:
    example = Example(id="", question=question, answer="", images=(b"",) * images)
    return [part.get("text", "IMAGE") for part in messages(example)[0]["content"]][:-1]


def test_every_image_reaches_the_prompt() -> None:
    assert kinds("what?", 2) == ["IMAGE", "IMAGE", "what?"]
    assert kinds("first <image> then <image>what?", 2) == ["first ", "IMAGE", "then ", "IMAGE", "what?"]
    assert kinds("see <image>what?", 2) == ["IMAGE", "see ", "IMAGE", "what?"]
    assert kinds("no <image>picture", 0) == ["no ", "picture"]


def test_earlier_turns_keep_their_images_and_the_rest_precede_the_question() -> None:
    example = Example(
        id="",
        question="and <image>?",
        answer="",
        images=(b"",) * 3,
        earlier=(Turn("system", "Be brief."), Turn("user", "<image>What?"), Turn("assistant", "A cat.")),
    )
    found = messages(example)
    assert [message["role"] for message in found] == ["system", "user", "assistant", "user"]
    parts = [[part.get("text", "IMAGE") for part in message["content"]] for message in found]
    assert parts[:3] == [["Be brief."], ["IMAGE", "What?"], ["A cat."]]
    assert parts[3] == ["IMAGE", "and ", "IMAGE", "?", f"\n{INSTRUCTION}"]


@pytest.mark.parametrize(
    "asking", [{"question": "Why? End with <answer>."}, {"earlier": (Turn("system", "<answer>"),)}]
)
def test_a_prompt_that_asks_for_an_answer_in_its_own_words_gets_no_others(asking: dict[str, Any]) -> None:
    found = messages(Example(**{"id": "", "question": "Why?", "answer": "", **asking}))
    assert not any(INSTRUCTION in part["text"] for message in found for part in message["content"])
