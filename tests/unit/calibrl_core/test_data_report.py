"""The data report: what it counts, and which rows it warns of."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter

from calibrl_core.data.kept_rows import check_target, write_kept
from calibrl_core.data.report import CheckedData, ReportLimits, ReportSettings, check_data
from calibrl_core.data.schema import DataError, FileData
from calibrl_core.verifiers.registry import Reward
from tests.support import pictures

RIGHT, WRONG = "<think>3+4=7</think><answer>7</answer>", "<think>3+4=8</think><answer>8</answer>"


def row(question: str = "3+4?", answer: str = "7", **columns: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, **columns}


def write(path: Path, *rows: dict[str, Any] | str) -> FileData:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return FileData(path=str(path))


def report(source: FileData, *types: str, **settings: Any) -> CheckedData:
    rewards = TypeAdapter(list[Reward]).validate_python([{"type": name} for name in types or ("math",)])
    return check_data(source, ReportSettings(rewards, **settings))


def kinds(checked: CheckedData) -> dict[str, list[int]]:
    return {one.kind: one.rows for one in checked.report.warnings}


def test_a_clean_file_has_counts_and_no_warning(tmp_path: Path) -> None:
    checked = report(write(tmp_path / "a.jsonl", row(expert=RIGHT, level=3, pass_ratio=0.25), row("1+1?", "2 cm")))
    found = checked.report
    assert (found.rows, found.complete, found.invalid, found.with_expert) == (2, True, 0, 1)
    assert list(found.formats.values()) == [2]
    assert (found.used_columns, found.unused_columns) == (["answer", "expert", "pass_ratio", "question"], ["level"])
    assert found.truths == {"number": 1, "number with unit": 1}
    assert (found.judged_experts, found.right_experts) == (1, 1)
    assert found.pass_ratios == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found.prompt_characters and found.prompt_characters.model_dump() == {
        "count": 2,
        "smallest": 4,
        "median": 4,
        "p95": 4,
        "largest": 4,
    }
    assert (found.warnings, checked.dropped) == ([], {})


def test_each_harmful_row_is_named_the_worst_kind_first(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        row(),
        "no JSON",
        row("Which one?", "the left one"),  # no number
        row("5+2?", expert=WRONG),
        row(" 3+4? "),  # repeats row 1
        row("３+４?", "8"),  # full-width digits: the prompt of row 1 with another answer
        row("What?", "7 " * 400),  # as long text
    )
    checked = report(source, "numeric")
    assert list(kinds(checked)) == [
        "invalid",
        "unearnable",
        "wrong_experts",
        "contradictions",
        "duplicates",
        "read_as_text",
    ]
    assert kinds(checked) == {
        "invalid": [2],
        "unearnable": [3, 7],
        "wrong_experts": [4],
        "contradictions": [6],
        "duplicates": [5],
        "read_as_text": [7],
    }
    assert checked.dropped == {
        2: "invalid",
        3: "unearnable",
        7: "unearnable",
        4: "wrong_experts",
        5: "duplicates",
    }
    texts = {one.kind: one.message for one in checked.report.warnings}
    assert texts["unearnable"] == (
        "2 of 7 rows have an answer that no completion can earn (row 3: the reward numeric refuses even 'the left one' "
        "itself): correct it, choose another reward, or set unearnable: drop"
    )
    assert texts["wrong_experts"].startswith("1 of 1 experts fail the rewards (row 4: numeric with the answer '7')")


def test_experts_are_judged_with_their_columns_and_silent_rewards_named(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", *(row(expert="<answer>7</answer>", seven=seven) for seven in ("7", "8")))
    column = {"type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.seven }}"}
    judge = {"type": "judge", "endpoint": "e", "model": "m", "messages": [{"content": "{{ truth }}?"}]}
    checked = check_data(path, ReportSettings(TypeAdapter(list[Reward]).validate_python([column, judge])))
    found = {one.kind: one.message for one in checked.report.warnings}
    assert found["wrong_experts"].startswith("1 of 2 experts fail the rewards (row 2: string_check with")
    assert found["not_asked"].startswith("the reward judge was not asked about the experts")
    assert (checked.report.judged_experts, checked.report.right_experts) == (2, 1)


def test_an_equal_number_is_no_contradiction(tmp_path: Path) -> None:
    checked = report(write(tmp_path / "a.jsonl", row("half?", "0.5"), row("half?", "1/2"), row("half?", "0.50")))
    assert kinds(checked) == {"duplicates": [2, 3]}


def test_the_prompt_of_a_row_with_another_expert_is_kept(tmp_path: Path) -> None:
    checked = report(write(tmp_path / "a.jsonl", row(expert=RIGHT), row(expert=f"{RIGHT} ")))
    assert (kinds(checked), checked.dropped) == ({"near_duplicates": [2]}, {})


TEXT = (
    "A farmer has a field that is 120 metres long and 45 metres wide, and he wants to build a fence around it with a "
    "post at every corner and at every third metre in between. How many posts does the farmer need in total for it?"
)


def test_a_text_with_a_word_more_is_a_near_duplicate(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        row(TEXT),
        row(f"{TEXT} Explain."),  # adds two of 47 5-grams
        row("A train leaves the station at noon and travels 60 km in an hour; another one follows. When do they meet?"),
    )
    assert kinds(report(source)) == {"near_duplicates": [2]}


def test_a_problem_of_the_source_is_shown_whole_and_a_long_answer_cut(tmp_path: Path) -> None:
    folder = tmp_path / ("f" * 200) / ("g" * 200)
    (unreadable,) = report(FileData(path=str(folder / "a.jsonl"))).report.warnings
    assert unreadable.message.endswith("cannot be read: No such file or directory")
    (long,) = (one for one in report(write(tmp_path / "a.jsonl", row(answer="x" * 90)), "numeric").report.warnings)
    assert f"refuses even '{'x' * 60} ...' itself" in long.message


def test_one_question_about_two_images_is_no_repetition(tmp_path: Path) -> None:
    images = [base64.b64encode(pictures.png(size=size)).decode() for size in (4, 6, 4)]
    checked = report(write(tmp_path / "a.jsonl", *(row(TEXT, images=[image]) for image in images)))
    assert kinds(checked) == {"duplicates": [3]}
    assert checked.report.images.model_dump(exclude={"height"}) == {
        "count": 3,
        "formats": {"PNG": 3},
        "converted": {},
        "decoded": 2,
        "width": {"count": 3, "smallest": 4, "median": 4, "p95": 6, "largest": 6},
    }


def test_rows_of_the_validation_data_are_found_by_text_and_by_image(tmp_path: Path) -> None:
    first, second = (base64.b64encode(pictures.png(size=size)).decode() for size in (4, 6))
    held_out = write(tmp_path / "test.jsonl", row(), row("How many?", images=[first]))
    source = write(
        tmp_path / "a.jsonl",
        row("3 + 4?"),
        row("3+4?  "),
        row("Which colour?", "red", images=[first]),
        row("How many?", images=[second]),
    )
    checked = report(source, against=held_out)
    assert kinds(checked) == {"overlap_prompts": [2], "overlap_images": [3]}
    assert (checked.report.overlap_prompts, checked.report.overlap_images) == (1, 1)
    assert report(source).report.overlap_prompts is None
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        report(source, against=FileData(path=str(tmp_path / "none.jsonl")))


def encoded_twice(colour: str) -> tuple[bytes, bytes]:
    """Return two files with the same pixels, 4 x 4."""
    png, bitmap = pictures.png(colour, size=4), io.BytesIO()
    Image.open(io.BytesIO(png)).save(bitmap, "BMP")
    return png, bitmap.getvalue()


def test_files_with_equal_pixels_are_equal_images(tmp_path: Path) -> None:
    red, red_again = (base64.b64encode(image).decode() for image in encoded_twice("red"))
    green = base64.b64encode(encoded_twice("green")[1]).decode()
    held_out = write(tmp_path / "test.jsonl", row("How many?", images=[red_again]))
    source = write(tmp_path / "a.jsonl", *(row("Which?", images=[one]) for one in (red, green, red_again, red)))
    checked = report(source, against=held_out)
    assert kinds(checked) == {"overlap_images": [1, 3, 4], "duplicates": [3, 4]}
    assert checked.report.images.decoded == 3
    limited = report(source, limits=ReportLimits(pixels=32))  # of the first two files
    assert kinds(limited) == {"duplicates": [4]}
    assert limited.report.images.decoded == 2


def test_a_prompt_that_nearly_equals_a_validation_prompt_is_named(tmp_path: Path) -> None:
    text = "A train leaves the station at noon and goes to the sea with a speed of {} kilometres per hour, and returns."
    held_out = write(tmp_path / "held.jsonl", row(text.format(60)), row("1+1?", "2"))
    source = write(tmp_path / "a.jsonl", row(f"{text.format(60)} Then"), row(f"{text.format(60)} So"), row("1+1?", "2"))
    checked = report(source, against=held_out)
    assert kinds(checked) == {"overlap_prompts": [3], "overlap_near": [1, 2], "near_duplicates": [2]}
    assert checked.report.overlap_near == 2 and not {1, 2} & checked.dropped.keys()
    assert report(source).report.overlap_near is None


def test_a_limit_ends_the_report(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", *(row(f"{number}+1?", str(number + 1)) for number in range(10)))
    for limits, rows in ((ReportLimits(rows=3), 3), (ReportLimits(seconds=-1), 1), (ReportLimits(rows=10), 10)):
        found = report(source, limits=limits).report
        assert (found.rows, found.complete) == (rows, rows == 10)


def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    checked = report(FileData(path=str(tmp_path / "none.jsonl")))
    assert [one.kind for one in checked.report.warnings] == ["unreadable"]
    assert "none.jsonl cannot be read" in checked.report.warnings[0].message


class Tokens:
    """A token per character."""

    def prompt(self, example: Any) -> int:
        if example.question == "bad":
            raise DataError("the template refuses it")
        return len(example.question)

    def expert(self, expert: str) -> int:
        return len(expert)


def test_long_prompts_and_experts_are_found_with_a_model(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", row(expert=RIGHT), row("bad"), row("too long", expert=RIGHT + " " * 5))
    found = report(source, tokens=Tokens(), max_prompt_tokens=4, max_completion_tokens=len(RIGHT))
    assert kinds(found) == {"long_experts": [3], "long_prompts": [3], "refused_by_model": [2]}
    assert found.report.cut_experts == 1
    assert found.report.prompt_tokens and found.report.prompt_tokens.largest == 8


def test_kept_lines_are_copied_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question":  "a", "answer": 1.50}\r\nbroken\n\n{"question": "b", "answer": 2}')
    source = FileData(path=str(path))
    dropped = report(source).dropped
    assert write_kept(source, dropped, tmp_path / "kept.jsonl") == 2
    kept = (tmp_path / "kept.jsonl").read_bytes()
    assert kept == b'{"question":  "a", "answer": 1.50}\r\n{"question": "b", "answer": 2}\n'
    with pytest.raises(FileExistsError, match="exists already"):
        write_kept(source, dropped, tmp_path / "kept.jsonl")


def test_kept_rows_of_parquet_read_as_before(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    image = pictures.png(size=4)
    rows = [row(images=[{"bytes": image, "path": None}]), row("1+1?", "2"), row("1+1?", "2")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    source, target = FileData(path=str(tmp_path / "a.parquet")), tmp_path / "kept.jsonl"
    checked = report(source)
    assert write_kept(source, checked.dropped, target) == 2
    again = report(FileData(path=str(target))).report
    assert (again.rows, again.images.count, again.warnings) == (2, 1, [])


def test_rows_that_name_images_stay_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(pictures.png(size=4))
    source = write(tmp_path / "a.jsonl", row(images=["a.png"]))
    checked = report(source)
    assert checked.names_files
    check_target(source, tmp_path / "kept.jsonl", names_files=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="write to a file in"):
        check_target(source, tmp_path / "other" / "kept.jsonl", names_files=True)
