"""Row formats: each public layout is recognised and read, chosen or with named columns; nothing is left out unsaid."""

import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from calibrl_core import data
from calibrl_core.data import files
from calibrl_core.data.formats import FORMATS, NAMES
from calibrl_core.data.schema import Columns, DataError, Example, FileData
from calibrl_core.data.source_facts import SourceFacts
from tests.support.layouts import Layout, layouts
from tests.support.pictures import png

IMAGE = png(size=4)
LAYOUTS = layouts(IMAGE)
VERL = {"prompt": [{"role": "user", "content": "Find x."}], "reward_model": {"ground_truth": "65"}}


def write(path: Path, *rows: Any) -> FileData:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path), image_files=False)


def only(tmp_path: Path, row: dict[str, Any], **options: Any) -> Example:
    source = write(tmp_path / "rows.jsonl", row).model_copy(update=options)
    (example,) = data.load(source)
    return example


def with_layouts() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@with_layouts()
def test_a_layout_is_recognised_and_read(tmp_path: Path, layout: Layout) -> None:
    facts = SourceFacts()
    first, second = files.load(write(tmp_path / layout.file, layout.row, layout.row), facts)
    assert facts.form is not None and facts.form.name == layout.name
    assert (first.question, first.answer, first.expert) == (layout.question, layout.answer, layout.expert)
    assert (first.data_source, first.images, second.images) == (layout.data_source, (IMAGE,), (IMAGE,))
    assert facts.unused == layout.unused
    assert first.id != second.id and first.asks_for_answer


@with_layouts()
def test_a_layout_that_is_chosen_is_read_alike(tmp_path: Path, layout: Layout) -> None:
    source = write(tmp_path / layout.file, layout.row, layout.row)
    assert data.load(source.model_copy(update={"format": layout.name})) == data.load(source)


def test_every_format_has_a_layout() -> None:
    assert {layout.name for layout in LAYOUTS.values()} == set(NAMES)


def test_a_format_is_one_of_a_closed_list(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"must be one of auto, chartqa, .*verl"):
        FileData(path="a.jsonl", format="verll")
    assert FileData.model_json_schema()["properties"]["format"]["enum"] == ["auto", *NAMES]
    with pytest.raises(
        DataError, match="has no column 'prompt' and 'reward_model', which format: verl needs; it has 'q'"
    ):
        only(tmp_path, {"q": 1}, format="verl")


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.name}-{len(form.needs)}")
def test_formats_are_described_in_the_guide(form: Any) -> None:
    guide = (Path(__file__).parents[3] / "docs/reference/data.md").read_text()
    assert f"| `{form.name}` |" in guide


def test_a_survey_names_the_format_and_what_is_left_out(tmp_path: Path) -> None:
    found = files.survey(write(tmp_path / "a.jsonl", {"question": "q", "answer": "1", "note": "n", "empty": None}))
    assert (found.row_format, found.unused_columns, found.problems) == ("the plain format", ("note",), ())


@pytest.mark.parametrize(
    ("cell", "expert"),
    [
        ([{"role": "assistant", "content": "e"}], "e"),
        ("e", "e"),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "e"}], "e"),
        ('[{"role": "user", "content": "q"}, {"role": "assistant", "content": "e"}]', "e"),
        ([{"role": "assistant", "content": "e", "reasoning_content": "t"}], "<think>t</think>\ne"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "e"}], "e"),
    ],
)
def test_a_named_expert_of_each_shape_in_verls_rows(tmp_path: Path, cell: Any, expert: str) -> None:
    assert only(tmp_path, VERL | {"trace": cell}, columns=Columns(expert="trace")).expert == expert
    assert only(tmp_path, VERL | {"target": cell}).expert == expert


def test_messages_without_the_assistant_are_no_expert(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1: column 'solution' holds messages, but none of the assistant"):
        only(tmp_path, VERL | {"solution": [{"role": "user", "content": "Find x."}]})


def test_a_named_column_replaces_its_own_only(tmp_path: Path) -> None:
    row = VERL | {"truth": 7, "picture": png(size=5).hex()}
    assert only(tmp_path, row | {"picture": []}, columns=Columns(answer="truth", images="picture")).answer == "7"
    ask = VERL | {"other": [{"role": "user", "content": "Find y."}]}
    assert only(tmp_path, ask, columns=Columns(question="other")).question == "Find y."
    named = {"problem": "p", "solution": "<answer>3</answer>", "trace": "t"}
    example = only(tmp_path, named, columns=Columns(expert="trace"))
    assert (example.question, example.answer, example.expert) == ("p", "3", "t")


def test_a_solution_without_steps_is_an_expert_if_it_is_named(tmp_path: Path) -> None:
    row = {"problem": "p", "answer": "3", "solution": "<answer>3</answer>"}
    assert only(tmp_path, row).expert is None
    assert only(tmp_path, row, columns=Columns(expert="solution")).expert == "<answer>3</answer>"


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("<answer> 3 </answer>", "3"),
        ("<answer>D</answer>", "D"),
        ("#### 18", "18"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("$\\boxed{A}$", "A"),
        ("\\boxed{1}, \\boxed{2}", "\\boxed{1}, \\boxed{2}"),
        ("9 (apples)", "9 (apples)"),
        ("issue ####", "issue ####"),
        (["\\boxed{3}"], "3"),
        ([3], "3"),
    ],
)
def test_a_truth_loses_its_wrapper(tmp_path: Path, answer: str, known: str) -> None:
    assert only(tmp_path, {"question": "q", "answer": answer}, format="plain").answer == known


@pytest.mark.parametrize(
    "answer", ["\\boxed{1}" + " " * 200_000 + "x", "#### " * 100_000 + "\nx"], ids=["box", "hashes"]
)
def test_a_long_answer_is_searched_once(tmp_path: Path, answer: str) -> None:
    assert only(tmp_path, {"question": "q", "answer": answer}, format="plain").answer == answer


def test_steps_before_hashes_are_an_expert_with_the_answer(tmp_path: Path) -> None:
    example = only(tmp_path, {"question": "q", "answer": "9+9=<<9+9=18>>18\n#### 18"})
    assert (example.answer, example.expert) == ("18", "<think>9+9=18</think>\n<answer>18</answer>")


def test_a_chat_with_a_boxed_answer_asks_for_it(tmp_path: Path) -> None:
    boxed = {"role": "assistant", "content": "<think>3+4=7.</think> So \\boxed{7}."}
    example = only(tmp_path, {"messages": [{"role": "user", "content": "3+4?"}, boxed], "images": []})
    assert (example.answer, example.asks_for_answer, example.images) == ("7", True, ())


def test_numbered_images_are_in_their_order(tmp_path: Path) -> None:
    one, two = (png(size=size) for size in (5, 6))
    cells = {"image_10": one, "image_2": two, "image_1": None}
    row = {name: image and base64.b64encode(image).decode() for name, image in cells.items()}
    mmmu = {"id": "1", "question": "<image 2> or <image 10>?", "options": "[]", "answer": "['3', 'three']", **row}
    example = only(tmp_path, mmmu)
    assert (example.question, example.answer, example.images) == ("<image> or <image>?", "3", (two, one))
    assert only(tmp_path, {"question": "q", "answer": "3", **row}).images == (two, one)


def test_images_of_two_columns_are_not_mixed(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "1", "image": base64.b64encode(IMAGE).decode(), "image_path": "a.png"}
    found = files.survey(write(tmp_path / "a.jsonl", row))
    assert (found.unused_columns, found.with_images) == (("image_path",), 1)


@pytest.mark.parametrize(
    ("row", "expert"),
    [
        ({"question": "q", "answer": "3", "expert": "e"}, "e"),
        ({"problem": "q", "answer": "3", "expert": "e"}, "e"),
        ({"problem": "q", "answer": "3", "solution": "So it is 3, e."}, "So it is 3, e."),
        (VERL | {"solution": "e"}, "e"),
        ({"prompt": "q", "completion": "e", "answer": "3"}, "e"),
        ({"query": "q", "response": "e"}, "e"),
        ({"instruction": "q", "output": "e"}, "e"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "e"}]}, "e"),
    ],
)
def test_reasoning_in_a_column_is_thought_by_the_expert(tmp_path: Path, row: dict[str, Any], expert: str) -> None:
    assert only(tmp_path, row).expert == expert
    example = only(tmp_path, row | {"reasoning_content": "1+2=3."})
    assert example.expert == f"<think>1+2=3.</think>\n{expert}"
    assert files.survey(FileData(path=str(tmp_path / "rows.jsonl"))).unused_columns == ()


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "q", "answer": "65"},
        {"problem": "q", "solution": "<answer>65</answer>"},
        VERL,
        {"prompt": "q", "answer": "65"},
        {"messages": [{"role": "user", "content": "q"}], "answer": "65"},
    ],
)
def test_reasoning_without_an_expert_ends_with_the_answer(tmp_path: Path, row: dict[str, Any]) -> None:
    example = only(tmp_path, row | {"reasoning_content": "180-115=65."})
    assert (example.answer, example.expert) == ("65", "<think>180-115=65.</think>\n<answer>65</answer>")


def test_a_pass_ratio_of_zero_drops_the_reasoning_too(tmp_path: Path) -> None:
    assert only(tmp_path, VERL | {"reasoning_content": "180-115=65.", "pass_ratio": 0.0}).expert is None


@pytest.mark.parametrize(("ratio", "read"), [(Decimal("0.5"), 0.5), (Decimal(1), 1.0)])
def test_a_decimal_pass_ratio_is_a_number(tmp_path: Path, ratio: Decimal, read: float) -> None:
    (example,) = data.load(write(tmp_path / "a.parquet", {"question": "q", "answer": "1", "pass_ratio": ratio}))
    assert example.pass_ratio == read


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (True, "column 'answer' holds true or false: write the answer as text, such as yes or no"),
        (["3", "4"], "column 'answer' must hold the answer, as text or a number; it has a list of 2: join them by"),
    ],
)
def test_other_answers_are_refused_with_the_remedy(tmp_path: Path, answer: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        only(tmp_path, {"question": "q", "answer": answer})
