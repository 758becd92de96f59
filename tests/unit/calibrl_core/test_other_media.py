"""Videos and sounds are refused in every format, with the column that holds them."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl_core import data
from calibrl_core.data.schema import DataError, FileData
from tests.support.option_rows import ROWS


def load(tmp_path: Path, row: dict[str, Any]) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    return data.load(FileData(path=str(path)))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_with_a_video_is_refused_in_every_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="row 1: column 'videos' holds videos, which training does not support"):
        load(tmp_path, ROWS[name] | {"videos": ["a.mp4"]})
    assert load(tmp_path, ROWS[name] | {"videos": [], "video": None})


@pytest.mark.parametrize(
    ("name", "kind"),
    [("video", "videos"), ("video_path", "videos"), ("video_url", "videos"), ("audio", "sounds"), ("audios", "sounds")],
)
def test_the_column_is_named(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(DataError, match=f"row 1: column '{name}' holds {kind}, which"):
        load(tmp_path, ROWS["plain"] | {name: "a.mp4"})


def test_facts_about_videos_are_no_videos(tmp_path: Path) -> None:
    assert load(tmp_path, ROWS["plain"] | {"video": 3, "video_title": "A walk", "videoless": "yes"})


@pytest.mark.parametrize("text", ["<video>What?", "What?\n<audio>", "<AUDIO>What?"])
def test_a_tag_of_a_video_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="row 1: the prompt has a tag <"):
        load(tmp_path, {"messages": [{"role": "user", "content": text}], "answer": "3"})


def test_a_question_about_the_tag_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, {"question": "What does <video> mean in HTML?", "answer": "3"})
