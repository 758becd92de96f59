"""Input of a reward, from a row and its completions, and the cache of verdicts."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.data import row_items
from calibrl_core.data.files import load
from calibrl_core.data.row_items import row_item
from calibrl_core.data.schema import Example, FileData, completed
from calibrl_core.verifiers.reward_input import ImageFiles, RewardInput, image_name
from calibrl_core.verifiers.verdict_cache import VerdictCache, content_key


def test_a_reward_sees_question_images_columns_and_group() -> None:
    one = Example("1", "Which?", "B", images=(b"png",), item={"level": 3})
    two = Example("2", "How many?", "7")
    seen = completed([one, two], ["a", "b", "c", "d"])
    assert [each.completion for each in seen] == ["a", "b", "c", "d"]
    assert [each.truth for each in seen] == ["B", "B", "7", "7"]
    assert (seen[0].question, seen[0].images, seen[0].item) == ("Which?", (b"png",), {"level": 3})
    assert [each.group for each in seen] == [("a", "b"), ("a", "b"), ("c", "d"), ("c", "d")]


def test_a_worker_reads_the_same_input_from_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFiles, "folder", tmp_path)
    for image in (b"one", b"two"):
        (tmp_path / image_name(image)).write_bytes(image)
    seen = RewardInput("x \ud800", "t", "q", (b"one", b"two"), {"a": [1, None]}, ("x \ud800", "y"))
    found = RewardInput.from_json(seen.to_json(with_group=True), "t")
    assert (found.completion, found.truth, found.question, found.item) == ("x \ud800", "t", "q", {"a": [1, None]})
    assert found.group == ("x \ud800", "y")
    assert list(found.images) == [b"one", b"two"]
    assert list(found.images[1:]) == [b"two"]
    assert RewardInput.from_json(seen.to_json(with_group=False), "t").group == ()


def test_columns_are_json_values_without_bytes() -> None:
    row = {
        "text": "a",
        "day": date(2026, 11, 29),
        "price": Decimal("1.5"),
        "nested": {"list": [1, {"deep": True}]},
        "image": {"bytes": b"png", "path": None},
        "nan": float("nan"),
    }
    found = row_item(row)
    assert found == {
        "text": "a",
        "day": "2026-11-29",
        "price": 1.5,
        "nested": {"list": [1, {"deep": True}]},
        "nan": None,
    }
    json.dumps(found)


def test_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_items, "LONGEST_COLUMN", 10)
    monkeypatch.setattr(row_items, "LONGEST_ITEM", 15)
    assert row_item({"long": "x" * 11, "a": "x" * 10, "b": "x" * 6, "c": "x" * 5}) == {"a": "x" * 10, "c": "x" * 5}
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    assert row_item({"deep": deep, "many": list(range(5000)), "n": 1}) == {"n": 1}


def test_a_file_hands_over_all_columns(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "1+1?", "answer": 2, "level": "easy", "tags": ["sum"]}) + "\n")
    (example,) = load(FileData(path=str(file)))
    assert example.item == {"question": "1+1?", "answer": 2, "level": "easy", "tags": ["sum"]}


def test_the_cache_keeps_the_verdicts_used_last() -> None:
    cache = VerdictCache(most=2)
    keys = [content_key("math", text, "7") for text in "abc"]
    cache.put(keys[0], 0.25)
    cache.put(keys[1], 0.5)
    assert cache.get(keys[0]) == 0.25
    cache.put(keys[2], 1.0)  # the second is dropped: its use is longest ago
    assert [cache.get(key) for key in keys] == [0.25, None, 1.0]


def test_keys_differ_if_any_part_does() -> None:
    parts = [("m", "ab", "c"), ("m", "a", "bc"), ("ma", "b", "c"), ("m", "ab", "d")]
    assert len({content_key(*each) for each in parts}) == 4
    assert content_key("m", "\ud800", "") != content_key("m", "", "\ud800")
