"""Merge patches: the examples of RFC 7396 that have an object at their top, and what specs add to it."""

from typing import Any

import pytest

from jobs.specs.merge_patch import merged


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        # a mapping of another type, or with another source, is another mapping
        ({"x": {"type": "grpo", "clip": 1}}, {"x": {"type": "sft"}}, {"x": {"type": "sft"}}),
        ({"x": {"type": "grpo", "clip": 1}}, {"x": {"type": "grpo"}}, {"x": {"type": "grpo", "clip": 1}}),
        ({"x": {"builtin": "digits", "split": "train"}}, {"x": {"path": "/d"}}, {"x": {"path": "/d"}}),
        ({"x": {"path": "/c", "columns": {}}}, {"x": {"dataset": "id"}}, {"x": {"dataset": "id"}}),
        ({"x": {"path": "/c", "rows": 5}}, {"x": {"path": "/d"}}, {"x": {"path": "/d", "rows": 5}}),
        ({"x": {"team": "a"}}, {"x": {"type": "b", "path": "c"}}, {"x": {"team": "a", "type": "b", "path": "c"}}),
    ],
)
def test_merge(target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]) -> None:
    before = repr(target)
    assert merged(target, patch) == result
    assert repr(target) == before
