"""The digits, files with good and bad rows, prompts, verifiers."""

import base64
import io
import json
import weakref

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calibrl_core import data
from calibrl_core.data import digits, files
from calibrl_core.data.files import check_source
from calibrl_core.data.schema import BuiltinData, Columns, DataError, Example, FileData
from calibrl_core.prompts import messages
from calibrl_core.rewards import score
from calibrl_core.verifiers import FormatReward, MathReward
from calibrl_core.verifiers.base import follows_format


def test_the_parts_share_no_source_digit():
    seen = {part: {image.tobytes() for image in digits._source_digits(part)[0]} for part in digits.SPLIT_SHARES}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert sum(len(digits._source_digits(part)[1]) for part in digits.SPLIT_SHARES) == 1797


def test_digits_are_the_same_every_time_and_their_answers_right():
    first = data.load(BuiltinData(builtin="digits", split="validation"))
    assert first == data.load(BuiltinData(builtin="digits", split="validation"))
    assert len(first) == digits.ROWS["validation"]
    terse, wordy = first[0].expert, first[1].expert
    left, right, total = terse.removeprefix("<think>").split(".")[0].replace("=", "+").split("+")
    assert int(left) + int(right) == int(total) == int(first[0].answer)
    assert "On the left I see" in wordy
    assert all(score(example.expert, example.answer, [MathReward()]).strict for example in first)


def test_noise_changes_the_picture_only():
    clean = data.load(BuiltinData(builtin="digits", split="test", rows=3))
    noisy = data.load(BuiltinData(builtin="digits", split="test-noise", rows=3))
    assert [one.answer for one in clean] == [one.answer for one in noisy]
    pixels = [np.asarray(Image.open(io.BytesIO(one.images[0])), dtype=float) for one in (clean[0], noisy[0])]
    assert 10 < np.abs(pixels[0] - pixels[1]).mean() < 60


@pytest.fixture
def png():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path))


def test_files_give_the_same_rows_whatever_holds_the_image(tmp_path, png):
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


def test_every_bad_row_is_named_at_once(tmp_path):
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
    assert all(f"row {row}:" in str(caught.value) for row in (1, 3, 4, 5))
    assert "row 2:" not in str(caught.value)


@pytest.mark.parametrize("name", ["日本.png", "a\x00.png", "A" * 300, "loop.png", "\ud800.png"])
def test_an_image_that_is_neither_file_nor_base64_is_a_rows_problem(tmp_path, name):
    (tmp_path / "loop.png").symlink_to("loop.png")
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": name}])
    (problem,) = check_source(source, needs_experts=False)
    assert problem.startswith(f"{source.path}, row 1: ")
    with pytest.raises(DataError, match="row 1:"):
        data.load(source)


def test_base64_too_long_for_a_name_is_read(tmp_path):
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text("note", "A" * 300)
    Image.new("RGB", (4, 4), "red").save(buffer, format="PNG", pnginfo=note)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    assert max(map(len, encoded.split("/"))) > 255 and len(encoded) < 1024
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": encoded}])
    assert data.load(source)[0].images == (buffer.getvalue(),)


def test_an_image_cut_short_is_a_rows_problem(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-200])
    source = write(tmp_path / "own.jsonl", [{"question": "q", "answer": "1", "images": "cut.jpg"}])
    assert "row 1: an image can't be read" in check_source(source, needs_experts=False)[0]


def test_lines_that_are_no_rows_are_named_with_the_other_bad_ones(tmp_path):
    good = b'{"question": "q", "answer": "1"}\n'
    (tmp_path / "x.jsonl").write_bytes(b"{not json}\n" + good + b'"text"\n{"question": ""}\n' + good)
    source = FileData(path=str(tmp_path / "x.jsonl"))
    (problem,) = check_source(source, needs_experts=False)
    assert all(f"row {row}:" in problem for row in (1, 3, 4))
    assert not any(f"row {row}:" in problem for row in (2, 5))
    source = FileData(path=str(tmp_path / "x.jsonl"), rows=2)
    assert "row 3:" not in check_source(source, needs_experts=False)[0]


def test_a_file_that_can_not_be_read_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "x.jsonl"
    path.symlink_to("/proc/self/mem")  # no one can read its beginning, not even root
    (problem,) = check_source(FileData(path=str(path)), needs_experts=False)
    assert problem.startswith(f"{path} can't be read: ")


def test_a_submission_waits_for_the_first_rows_only(tmp_path, monkeypatch, png):
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


def test_a_check_keeps_no_rows(tmp_path, monkeypatch):
    """Of all the examples that it builds, one is alive at a time."""
    alive = weakref.WeakSet()
    most = []
    make = files._example

    def watched(*arguments):
        most.append(len(alive))
        example = make(*arguments)
        alive.add(example)
        return example

    monkeypatch.setattr(files, "_example", watched)
    rows = [{"question": f"q{number}", "answer": "1"} for number in range(50)]
    assert check_source(write(tmp_path / "x.jsonl", rows), needs_experts=False) == []
    assert len(most) == 50 and max(most) <= 1


@pytest.mark.parametrize("content", [b"", b"{not json}\n", b'"text"\n', b"\xff\xfe\n"])
def test_a_file_that_is_no_jsonl_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    (problem,) = check_source(FileData(path=str(tmp_path / "x.jsonl")), needs_experts=False)
    assert "x.jsonl" in problem


def test_what_keeps_a_file_from_training(tmp_path):
    plain = write(tmp_path / "plain.jsonl", [{"question": "q", "answer": "1"}])
    assert check_source(plain, needs_experts=False) == []
    assert "expert" in check_source(plain, needs_experts=True)[0]
    assert "does not exist" in check_source(FileData(path=str(tmp_path / "no.jsonl")), needs_experts=False)[0]
    assert "neither" in check_source(FileData(path=str(tmp_path / "x.csv")), needs_experts=False)[0]
    (tmp_path / "x.parquet").write_bytes(b"PAR0")
    assert "Parquet" in check_source(FileData(path=str(tmp_path / "x.parquet")), needs_experts=False)[0]


def kinds(question, images):
    example = Example(id="", question=question, answer="", images=(b"",) * images)
    return [part.get("text", "IMAGE") for part in messages(example)[0]["content"]][:-1]


def test_every_image_reaches_the_prompt():
    assert kinds("what?", 2) == ["IMAGE", "IMAGE", "what?"]
    assert kinds("first <image> then <image>what?", 2) == ["first ", "IMAGE", "then ", "IMAGE", "what?"]
    assert kinds("see <image>what?", 2) == ["IMAGE", "see ", "IMAGE", "what?"]
    assert kinds("no <image>picture", 0) == ["no ", "picture"]


@pytest.mark.parametrize(
    ("completion", "truth", "passed", "strict"),
    [
        ("<think>3+4=7.</think><answer>7</answer>", "7", True, True),
        ("<answer>7</answer>", "7", True, False),
        ("<think>a</think><answer>8</answer>", "7", False, False),
        ("<think>a</think><answer>07</answer>", "7", True, True),
        ("<think>a</think><answer>14/2</answer>", "7", True, True),
        ("<think>a</think><answer>\\frac{1}{2}</answer>", "0.5", True, True),
        ("<think>a</think><answer>6</answer><answer>7</answer>", "7", True, False),
        ("7", "7", False, False),
        ("<answer></answer>", "7", False, False),
        ("<answer>" + "9**" * 400 + "9</answer>", "7", False, False),
    ],
)
def test_scores(completion, truth, passed, strict):
    found = score(completion, truth, [MathReward(), FormatReward(weight=0.1)])
    assert (found.passed, found.strict) == (passed, strict)
    assert found.reward == pytest.approx(passed + 0.1 * follows_format(completion))
