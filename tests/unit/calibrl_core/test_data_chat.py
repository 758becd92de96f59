"""OpenAI's chat form: what becomes of messages, images, experts and answers, and what is refused."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from calibrl_core import data
from calibrl_core.data.files import read_examples
from calibrl_core.data.prompts import INSTRUCTION, messages
from calibrl_core.data.schema import Columns, DataError, Example, FileData, Turn
from tests.support.pictures import png

ASK = {"role": "user", "content": "What is 1 + 2?"}
PNG = png(size=4)
TELL = {"role": "assistant", "content": "<think>1+2</think><answer>3</answer>"}


def picture(data: bytes) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


def source(tmp_path: Path, *rows: Any, suffix: str = "jsonl", **options: Any) -> FileData:
    path = tmp_path / f"chat.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path), image_files=False, **options)


def only(tmp_path: Path, row: dict[str, Any], **options: Any) -> Example:
    (example,) = data.load(source(tmp_path, row, **options))
    return example


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_assistants_last_message_is_the_expert_and_the_answer(tmp_path: Path, suffix: str) -> None:
    first = {"role": "developer", "content": "Be brief."}
    row = {"messages": [first, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi!"}, ASK, TELL]}
    example = only(tmp_path, row, suffix=suffix)
    assert (example.question, example.answer, example.expert) == ("What is 1 + 2?", "3", TELL["content"])
    assert example.earlier == (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hi!"))
    assert messages(example)[-1]["content"][-1]["text"].endswith(INSTRUCTION)


def test_plain_chat_data_adds_no_request_for_answer_tags(tmp_path: Path) -> None:
    example = only(tmp_path, {"messages": [ASK, {"role": "assistant", "content": " Three. "}]})
    assert (example.expert, example.answer) == (" Three. ", "Three.")
    assert messages(example)[-1]["content"] == [{"type": "text", "text": "What is 1 + 2?"}]
    graded = only(tmp_path, {"messages": [ASK, {"role": "assistant", "content": "Three."}], "answer": 3})
    assert graded.answer == "3"
    assert messages(graded)[-1]["content"][-1]["text"] == f"\n{INSTRUCTION}"


def test_images_are_where_the_messages_have_them(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "first "}, picture(PNG), {"type": "text", "text": " then "}, picture(PNG)]
    row = {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": parts}],
        "reference_answer": "a",
    }
    example = only(tmp_path, row)
    assert (example.question, example.images) == ("first <image> then <image>", (PNG, PNG))
    assert example.expert is None


def test_the_answers_column_may_be_named(tmp_path: Path) -> None:
    row = {"messages": [ASK, TELL], "answer": "no", "hex": "0x3"}
    assert only(tmp_path, row, columns=Columns(answer="hex")).answer == "0x3"
    with pytest.raises(DataError, match=r"row 1: column 'hex' must hold the answer"):
        only(tmp_path, row | {"hex": None}, columns=Columns(answer="hex"))


def test_a_row_without_an_answer_waits_for_one_at_upload_only(tmp_path: Path) -> None:
    made = source(tmp_path, {"messages": [ASK], "hex": "0x3"})
    (example,) = read_examples(made, answers=False)
    assert isinstance(example, Example) and example.answer == ""
    with pytest.raises(DataError, match=r"row 1: has no answer: end 'messages' with the assistant's"):
        data.load(made)


def test_messages_with_weight_0_are_not_trained_on(tmp_path: Path) -> None:
    example = only(tmp_path, {"messages": [ASK, TELL | {"weight": 0}], "answer": "3"})
    assert example.expert is None


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": "hello"}, "must hold a list of messages"),
        ({"messages": []}, "must end with a message of the user"),
        ({"messages": [TELL]}, "must end with a message of the user"),
        ({"messages": [ASK, TELL, TELL]}, "must end with a message of the user"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role must be one of system, developer, user, assistant"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role must be one of"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, "content must be text or a list of parts"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{}], "content": None}]}, "tool call"),
        ({"messages": [ASK, {"role": "assistant", "content": [picture(b"")]}]}, "not in the assistant's"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "'messages' holds sounds, which training",
        ),
        ({"messages": [{"role": "user", "content": [picture(b"x")]}]}, "image begins with b.x."),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://a.org/a.png"}]}]},
            "nothing is downloaded",
        ),
        ({"messages": [{"role": "user", "content": "<image>?"}], "answer": "1"}, "1 <image> tags"),
        ({"messages": [ASK, TELL], "tools": [{}]}, "holds tools"),
        ({"messages": [ASK, TELL], "images": ["a"]}, "image 'a' is not base64"),
        (
            {"messages": [{"role": "user", "content": [picture(PNG)]}], "images": [base64.b64encode(PNG).decode()]},
            "both hold images",
        ),
        ({"messages": [ASK], "answer": ["a", "b"]}, "column 'answer' must hold the answer"),
    ],
)
def test_refused_rows_are_named(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text) as refused:
        only(tmp_path, row)
    assert "row 1:" in str(refused.value)
