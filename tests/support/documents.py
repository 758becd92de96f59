"""The README and the pages of docs/: their headings, links, fenced blocks and shell commands."""

import importlib.util
import re
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROJECT_FILES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Block:
    """A fenced block: its file (from the root), the line of its first fence, its language and its text."""

    path: str
    line: int
    language: str
    text: str


@cache
def generator() -> ModuleType:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def written() -> dict[str, str]:
    """Return the text of each Markdown file in the repository by its path from the root."""
    paths = [ROOT / name for name in PROJECT_FILES] + sorted(DOCS.rglob("*.md"))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


@cache
def pages() -> dict[str, str]:
    """Return `written()` and the generated pages."""
    return written() | {f"docs/{path}": text for path, text in generator().pages().items()}


def blocks(*languages: str) -> list[Block]:
    """Return the fenced blocks of these languages in all written pages."""
    return [block for path, text in written().items() for block in _blocks(path, text) if block.language in languages]


def _blocks(path: str, text: str) -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(path, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def without_blocks(text: str) -> str:
    """Return a page without fenced blocks; the number of lines stays."""
    return re.sub(r"^```.*?^```$", lambda found: "\n" * found[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Return a page without fenced blocks and code spans; the number of lines stays."""
    return re.sub(r"`[^`]*`", lambda found: "\n" * found[0].count("\n"), without_blocks(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings as the site makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {_slug(heading) for heading in headings}


def _slug(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def links(text: str) -> list[str]:
    """Return the targets of a page's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def command_lines() -> list[tuple[Block, list[str]]]:
    """Return the words of each command in the shell and console blocks of all written pages, with its block."""
    return [(block, words) for block in blocks("sh", "console") for words in commands(block)]


def commands(block: Block) -> list[list[str]]:
    """Return the words of each command in a block, without comments, `VARIABLE=value` and redirections.

    In a console block, commands are the lines that begin with `$ `.
    """
    text = re.sub(r" > \S+", "", block.text.replace("\\\n", " "))
    if block.language == "console":
        text = "\n".join(line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
    found: list[list[str]] = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) - set(";&|"):
                found.append(words)
                words = []
            else:
                words.append(word)
    stripped = [_without_variables(words) for words in found]
    return [words for words in stripped if words]


def _without_variables(words: list[str]) -> list[str]:
    while words and re.match(r"^[A-Z_]+=", words[0]):
        words = words[1:]
    return words
