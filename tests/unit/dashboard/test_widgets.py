"""Widgets of all pages, by their code: limits of numbers, and keys that two pages share."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dashboard

ROOT = Path(dashboard.__file__).parent


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def test_no_number_field_has_limits_of_streamlit() -> None:
    """With these the field shows a number that is out of range, but the old one is sent."""
    fields = [
        (path.name, call) for path in ROOT.rglob("*.py") for call in calls(path) if called(call) == "number_input"
    ]
    limited = [
        (name, call.lineno)
        for name, call in fields
        if len(call.args) > 1 or {word.arg for word in call.keywords} & {"min_value", "max_value"}
    ]
    assert len(fields) > 4 and limited == []


def test_no_two_pages_share_the_key_of_a_widget() -> None:
    """The choice on one page would be the choice on the other."""
    pages: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "app_pages").glob("*.py"):
        for call in calls(path):
            for word in call.keywords:
                if word.arg == "key" and isinstance(word.value, ast.Constant):
                    pages[str(word.value.value)].add(path.name)
    assert "admin-project" in pages
    assert {key: names for key, names in pages.items() if len(names) > 1} == {}
