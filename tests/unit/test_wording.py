"""Texts that users read are plain technical English: no banned words, no banned openings.

To check more texts, add them to `TEXTS` (banned words) or `DESCRIPTIONS` (also banned openings).
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from api.main import app
from calibrl import cli
from calibrl.schemas import job_spec_adapter
from calibrl_core.metrics import FAMILIES, HISTOGRAMS
from jobs.settings import Settings
from tests.support import documents

# Old, poetic or ambiguous words, each with its replacement.
BANNED = {
    r"told": "passed, sent, reported",
    r"anew": "again",
    r"whoever|whomever": "anyone who, the client",
    r"nobody": "no one, no process",
    r"mend(?:s|ed|ing)?": "fix",
    r"heed(?:s|ed|ing)?": "use, follow",
    r"for want of": "because there is no",
    r"be it": "even, whether",
    r"(?:give|gives|giving|gave|given) way": "is preempted",
    r"at hand": "available",
    r"stands": "is, is in",
    r"of one's own": "its own",
    r"in company": "together",
    r"lest": "so that ... not",
    r"save that": "except",
    r"foresee(?:s|n)?": "forecast",
    r"begotten|thereof|thereby|hitherto|whence|thence": "a plain word",
    r"for ever": "without limit",
    r"(?:s|nats|seconds|bytes|tokens|rows|prompts|rollouts|completions|answers|updates|points|images|requests|hours|jobs)"
    r" an? (?:token|step|second|prompt|group|image|row|key|file|job|user|month|day|line|process)": "per",
    r"(?:file|line|worker) an? (?:resource|event|machine)": "per",
    r"jobs may|runs? may|rewards? may|keys? may|may (?:not|only)": "can, cannot, is allowed to",
    r"is no (?:folder|path|number|JSON)|is no file of": "is not a",
}
ANY_BANNED = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)  # one search is quicker than one per word
# Terms that the product has another word for.
OTHER_TERMS = {
    r"held[- ]out": "validation",
    r"data sets?": "dataset",
}
# Terms that only the dashboard has another word for: its labels are short.
DASHBOARD_TERMS = {
    r"in training": "train",
    r"commonest": "most common",
    r"tokens? a second": "tokens/s",
    r"surer|surprise": "log-probability, NLL",
    r"the newest": "latest",
    r"out of sight": "no access",
    r"most (?:completion|prompt|tokens|gigabytes|attempts)": "max",
}
# Folders whose docstrings and test names are read.
FOLDERS = ("api", "bench", "calibrl", "calibrl_core", "dashboard", "docs", "jobs", "migrations", "tests", "worker")
# Calls whose texts a client gets as an error.
REFUSALS = frozenset(
    {
        *("FieldError", "Invalid", "Conflict", "NotFound", "Forbidden", "QuotaExceeded", "StorageUnavailable"),
        *("Busy", "RequestInProgress", "refusal"),
    }
)
BAD_OPENING = re.compile(r"(?:What|Whether|That|Of|As|Where|Those|Whoever)\b(?! is a | are )")


def faults(text: str) -> Iterator[str]:
    """Yield each banned word of a text with its replacement."""
    if not ANY_BANNED.search(text):
        return
    for pattern, instead in BANNED.items():
        for found in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            yield f"{found[0]!r}: write {instead}"


def term_faults(text: str, terms: Mapping[str, str]) -> Iterator[str]:
    """Yield each word of a text for which `terms` has another one."""
    for pattern, instead in terms.items():
        for found in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            yield f"{found[0]!r}: write {instead}"


def opening_faults(text: str) -> Iterator[str]:
    """Yield the first word of a description if it is a banned opening."""
    if found := BAD_OPENING.match(text.strip()):
        yield f"begins with {found[0]!r}: begin with a verb or a noun"


@cache
def pages() -> Mapping[str, str]:
    """Return README and docs by path, without code; with the generated pages, so with every spec field and command."""
    return {path: documents.prose(text) for path, text in documents.pages().items()}


def described(node: Any, place: str, keys: tuple[str, ...] = ("description",)) -> Iterator[tuple[str, str]]:
    """Yield each description (or the texts of other `keys`) of a JSON document with its place."""
    if isinstance(node, dict):
        yield from ((f"{place}/{key}", text) for key in keys if isinstance(text := node.get(key), str))
        for key, value in node.items():
            yield from described(value, f"{place}/{key}", keys)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from described(value, f"{place}/{index}", keys)


@cache
def openapi() -> Mapping[str, str]:
    """Return all descriptions of the API: endpoints, parameters, schemas and fields."""
    return dict(described(app.openapi(), "openapi"))


@cache
def openapi_titles() -> Mapping[str, str]:
    """Return the titles and summaries of the API."""
    return dict(described(app.openapi(), "openapi", ("title", "summary")))


@cache
def specs() -> Mapping[str, str]:
    """Return all descriptions of the JSON Schema of specs."""
    return dict(described(job_spec_adapter.json_schema(), "spec"))


@cache
def settings() -> Mapping[str, str]:
    """Return the descriptions of the service's settings."""
    return {f"settings/{name}": field.description or "" for name, field in Settings.model_fields.items()}


def literals(path: Path, tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each text with a space in a syntax tree, by file and line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield f"{path.relative_to(documents.ROOT)}:{node.lineno}:{node.col_offset}", node.value


def in_files(paths: Iterable[Path]) -> Mapping[str, str]:
    """Return all texts in Python files: messages, labels and docstrings."""
    return {place: text for path in paths for place, text in literals(path, ast.parse(path.read_text()))}


def in_folder(name: str) -> list[Path]:
    """Return the Python files below a folder of the repository."""
    return sorted((documents.ROOT / name).rglob("*.py"))


@cache
def dashboard() -> Mapping[str, str]:
    """Return the texts in the dashboard's code by file and line: labels, titles, hints, messages and docstrings."""
    return in_files(in_folder("dashboard"))


@cache
def refusals() -> Mapping[str, str]:
    """Return the messages of refused requests: the texts in the arguments of the errors of jobs/ and api/."""
    found: dict[str, str] = {}
    for path in (*in_folder("jobs"), *in_folder("api")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if name in REFUSALS:
                found |= dict(literals(path, node))
    return found


@cache
def other_messages() -> Mapping[str, str]:
    """Return titles of errors, advice of health rules, output of the CLI and help of the Prometheus metrics."""
    worker = ("worker/supervisor.py", "worker/part.py", "worker/meeting.py", "worker/trainer_process.py")
    files = ("jobs/errors.py", "api/prometheus.py", *worker)
    paths = [documents.ROOT / file for file in files]
    return in_files(
        [
            *paths,
            *in_folder("calibrl/views"),
            *in_folder("calibrl/commands"),
            *in_folder("jobs/lifecycle"),
            *in_folder("calibrl_core/health"),
        ]
    )


@cache
def build_files() -> Mapping[str, str]:
    """Return the lines of the Makefile and of docker-compose.yml: help, messages and comments."""
    return {
        f"{name}:{number}": line
        for name in ("Makefile", "docker-compose.yml")
        for number, line in enumerate((documents.ROOT / name).read_text().splitlines(), 1)
    }


@cache
def docstrings_and_test_names() -> Mapping[str, str]:
    """Return the docstrings of all packages and tests, and the names of the tests in words, without this file."""
    found: dict[str, str] = {}
    for path in (path for folder in FOLDERS for path in in_folder(folder) if path != Path(__file__).resolve()):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name = getattr(node, "name", "")
            place = f"{path.relative_to(documents.ROOT)}:{getattr(node, 'lineno', 1)}"
            found[place] = ast.get_docstring(node) or ""
            if name.startswith("test_"):
                found[f"{place}, name"] = name.replace("_", " ")
    return found


COMMENT = re.compile(r"(?:^ *|  )# (.*)$", re.MULTILINE)
QUOTED = re.compile(r"`[^`]*`")


@cache
def comments() -> Mapping[str, str]:
    """Return the comments of all packages and tests by file and place, without quoted names and without this file."""
    return {
        f"{path.relative_to(documents.ROOT)}:{found.start()}": QUOTED.sub("", found[1])
        for folder in FOLDERS
        for path in in_folder(folder)
        if path != Path(__file__).resolve()
        for found in COMMENT.finditer(path.read_text())
    }


@cache
def registry() -> Mapping[str, str]:
    """Return the texts of the registry of metrics by name."""
    metrics = [*HISTOGRAMS, *(metric for family in FAMILIES for metric in family.metrics)]
    texts = {f"{metric.name} ({metric.unit})": metric.hint for metric in metrics}
    return texts | {family.title: family.about for family in FAMILIES}


@cache
def command_line() -> Mapping[str, str]:
    """Return help of all commands, arguments and options by place."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, str]]:
        texts = {path: command.help, f"{path}, epilog": command.epilog}
        texts |= {f"{path} {parameter.name}": getattr(parameter, "help", None) for parameter in command.params}
        yield from ((place, text) for place, text in texts.items() if text)
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{path} {name}")

    return dict(walk(typer.main.get_command(cli.app), "calibrl"))


# Sources of texts: each returns texts by their place.
Texts = Callable[[], Mapping[str, str]]
TEXTS: list[Texts] = [pages, dashboard, refusals, other_messages, openapi_titles, build_files, comments]
DESCRIPTIONS: list[Texts] = [command_line, openapi, specs, settings, registry, docstrings_and_test_names]


def test_no_text_has_a_banned_word() -> None:
    texts = [item for source in (*TEXTS, *DESCRIPTIONS) for item in source().items()]
    assert len(texts) > 50
    assert [f"{place}: {fault}" for place, text in texts for fault in faults(text)] == []


def test_there_is_one_term_for_each_thing() -> None:
    texts = [item for source in (*TEXTS, *DESCRIPTIONS) for item in source().items()]
    assert [f"{place}: {fault}" for place, text in texts for fault in term_faults(text, OTHER_TERMS)] == []


def test_the_dashboard_has_one_term_for_each_thing() -> None:
    texts = [*dashboard().items(), *registry().items()]
    assert len(texts) > 500
    assert [f"{place}: {fault}" for place, text in texts for fault in term_faults(text, DASHBOARD_TERMS)] == []


def test_no_description_has_a_banned_opening() -> None:
    texts = [item for source in DESCRIPTIONS for item in source().items()]
    assert [f"{place}: {fault}" for place, text in texts for fault in opening_faults(text)] == []


@pytest.mark.parametrize(
    "text",
    ["Whoever asks is told.", "It begins anew.", "nats a token", "Mended", "a job gives way", "It stands there."],
)
def test_banned_words_are_found(text: str) -> None:
    assert list(faults(text))


@pytest.mark.parametrize("text", ["mean entropy in nats per token", "stand-in for torch", "an amendment", "a token"])
def test_other_words_are_not_found(text: str) -> None:
    assert not list(faults(text))


def test_each_source_has_texts() -> None:
    assert [source.__name__ for source in (*TEXTS, *DESCRIPTIONS) if len(source()) < 10] == []


def test_every_setting_is_described() -> None:
    assert [place for place, text in settings().items() if not text.endswith(".")] == []


def test_other_terms_are_found() -> None:
    text = "Held-out accuracy of the newest data set"
    assert [*term_faults(text, OTHER_TERMS)] == ["'Held-out': write validation", "'data set': write dataset"]
    assert [*term_faults(text, DASHBOARD_TERMS)] == ["'the newest': write latest"]
    assert not list(term_faults("Validation accuracy of the latest dataset", OTHER_TERMS | DASHBOARD_TERMS))


def test_banned_openings_are_found() -> None:
    assert list(opening_faults("Whether it is so"))
    assert list(opening_faults("What a client posts"))
    assert not list(opening_faults("Return the job"))
    assert not list(opening_faults("Offset of the file"))
