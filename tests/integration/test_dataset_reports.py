"""Data reports of uploaded files over real HTTP."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.pictures import png
from tests.support.rest import named, refused
from tests.support.word_tokenizer import save_word_tokenizer

pytestmark = pytest.mark.integration
IMAGE = base64.b64encode(png()).decode()


def uploaded(http: httpx.Client, *rows: dict[str, Any]) -> str:
    """Upload rows and return the path of their report."""
    fixed = {"question": "<image>What is it?", "images": [IMAGE], "answer": "red", "expert": "It is red."}
    content = "".join(json.dumps(fixed | row) + "\n" for row in rows).encode()
    answer = http.post("/v1/datasets/upload", content=content, params={"name": "mine"})
    assert answer.status_code == 201, answer.text
    return f"/v1/datasets/{answer.json()['id']}/report"


def test_repeated_rows_and_those_of_validation_data_are_named(http: httpx.Client) -> None:
    held_out = uploaded(http, {"question": "And?"}).split("/")[3]
    numbers = ({"answer": "3"}, {"answer": "3"}, {"question": "And?", "answer": "3"})
    path = uploaded(http, *numbers, {"question": "Or?", "answer": "no number"})
    found = http.post(path, json={"rewards": [{"type": "numeric"}], "against": held_out}).json()
    assert (found["rows"], found["complete"], found["overlap_prompts"]) == (4, True, 1)
    assert {one["kind"]: one["rows"] for one in found["warnings"]} == {
        "unearnable": [4],
        "wrong_experts": [1, 2, 3],
        "overlap_prompts": [3],
        "overlap_images": [1, 2, 4],
        "duplicates": [2],
    }
    assert http.post(path, json={}).json()["overlap_prompts"] is None
    assert refused(http.post(path, json={"against": "00000000-0000-0000-0000-000000000001"}), 404)
    of_hub = http.post("/v1/datasets", json={"name": "of-hub", "hub": "some/body"}).json()
    assert "calibrl data check" in refused(http.post(f"/v1/datasets/{of_hub['id']}/report", json={}), 409)["detail"]


def test_tokens_are_counted_for_the_limits_of_a_job(http: httpx.Client, tmp_path: Path) -> None:
    model = {"model": str(save_word_tokenizer(tmp_path / "words"))}
    limits = {"max_prompt_tokens": 4, "max_completion_tokens": 3}
    path = uploaded(http, {"expert": "one two three"}, {"question": "And what else is it?", "expert": "four"})
    found = http.post(path, json={"rewards": [], **model, **limits}).json()
    assert (found["expert_tokens"]["largest"], found["cut_experts"]) == (4, 1)  # the end of the turn is a token
    of_kind = {one["kind"]: one["rows"] for one in found["warnings"]}
    assert (of_kind["long_experts"], of_kind["long_prompts"]) == ([1], [2])
    assert named(http.post(path, json=limits)) == ["body"]
    assert named(http.post(path, json={"model": "/etc"})) == ["model"]


def test_a_file_can_be_read_in_another_format(http: httpx.Client) -> None:
    path = uploaded(http, {})
    (warning,) = http.post(path, json={"format": "sharegpt"}).json()["warnings"]
    assert warning["message"].startswith("mine has no column 'conversations', which format: sharegpt needs")
    assert named(http.post(path, json={"format": "no such"})) == ["format"]
