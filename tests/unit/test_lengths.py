"""Functions, files and names of tests stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "bench", "calibrl", "calibrl_core", "dashboard", "jobs", "tests", "worker")
LONGEST_FUNCTION, LONGEST_FILE = 50, 400  # lines
LONGEST_NAME = 70  # characters


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def functions(*packages: str) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sources(*packages):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path.relative_to(ROOT), node


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def test_functions_have_at_most_50_lines() -> None:
    long = [f"{path}: {node.name}" for path, node in functions(*PACKAGES) if lines_of(node) > LONGEST_FUNCTION]
    assert long == []


def test_files_have_at_most_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(*PACKAGES)}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_names_of_tests_have_at_most_70_characters() -> None:
    tests = [(path, node.name) for path, node in functions("tests") if node.name.startswith("test_")]
    assert [f"{path}: {name}" for path, name in tests if len(name) > LONGEST_NAME] == []
