"""README and docs: links lead somewhere, generated pages cover the product, examples and commands are valid."""

import ast
import itertools
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from calibrl.cli import app as cli_app
from calibrl.schemas import StudySpec, job_spec_adapter
from calibrl_core.health import RULES
from calibrl_core.metrics import FAMILIES, HISTOGRAMS
from jobs.settings import Settings
from jobs.specs.pipelines import with_ids
from jobs.studies.expansion import expand
from tests.support import documents, programs
from tests.support.documents import Block

SOME_ID = "00000000-0000-0000-0000-000000000001"
LONGEST_LINE = 100
STUDY = yaml.safe_load((documents.DOCS / "examples" / "study.yaml").read_text())


def place(block: Block) -> str:
    return f"{block.path}:{block.line}"


def per_block(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", documents.blocks(*languages), ids=place)


# ---- Pages


def test_every_link_leads_to_a_page_a_file_or_a_heading() -> None:
    pages = documents.pages()
    broken = []
    for path, text in pages.items():
        for link in documents.links(text):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            full = (documents.ROOT / path).parent.joinpath(target).resolve() if target else documents.ROOT / path
            name = str(full.relative_to(documents.ROOT))
            exists = name in pages or full.exists()
            if not exists or (anchor and anchor not in documents.anchors(pages[name])):
                broken.append(f"{path}: {link}")
    assert broken == []


def test_the_docs_show_every_screenshot() -> None:
    text = "".join(documents.pages().values())
    pictures = [path.name for path in (documents.ROOT / "docs" / "screenshots").iterdir()]
    assert pictures and [name for name in pictures if f"screenshots/{name}" not in text] == []


def test_lines_of_text_have_at_most_100_characters() -> None:
    long = [
        f"{path}:{number}"
        for path, text in documents.written().items()
        for number, line in enumerate(documents.without_blocks(text).splitlines(), 1)
        if len(line) > LONGEST_LINE and not line.startswith("|")
    ]
    assert long == []


def test_the_readme_has_at_most_120_lines() -> None:
    assert len(documents.written()["README.md"].splitlines()) <= 120


def test_the_site_lists_every_page() -> None:
    listed = (documents.ROOT / "mkdocs.yml").read_text()
    decisions = documents.written()["docs/explanation/decisions/index.md"]
    for path in documents.pages():
        if path.startswith("docs/"):
            page = path.removeprefix("docs/")
            assert page in listed or Path(page).name in decisions, path


# ---- Generated pages


def test_settings_page_has_every_environment_variable() -> None:
    page = documents.pages()["docs/reference/settings.md"]
    variables = [documents.generator().variable(name) for name in Settings.model_fields]
    assert "CALIBRL_LEASE_SECONDS" in variables and "DATABASE_URL" in variables
    assert [name for name in variables if f"| `{name}` |" not in page] == []


def test_cli_page_has_every_command_and_option() -> None:
    page = documents.pages()["docs/reference/cli.md"]
    sections = dict(re.findall(r"^## (calibrl [^\n]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    found = documents.generator().commands()
    assert {"calibrl submit", "calibrl keys create", "calibrl profiles"} <= set(found)
    assert sections.keys() == found.keys()
    for name, command in found.items():
        options = [opt for parameter in command.params if parameter.name != "help" for opt in parameter.opts]
        assert [opt for opt in options if opt.startswith("-") and opt not in sections[name]] == [], name


def test_rest_page_has_every_route() -> None:
    from api.main import app

    page = documents.pages()["docs/reference/rest.md"]
    paths = app.openapi()["paths"]
    routes = [f"### {method.upper()} {path}\n" for path, operations in paths.items() for method in operations]
    assert len(routes) > 60
    assert [route for route in routes if route not in page] == []


def test_spec_page_has_every_field() -> None:
    page = documents.pages()["docs/reference/spec.md"]
    for name, definition in job_spec_adapter.json_schema()["$defs"].items():
        assert f"\n## {name}\n" in page
        assert [field for field in definition.get("properties", ()) if f"| `{field}` |" not in page] == []


def test_study_page_has_every_field() -> None:
    page = documents.pages()["docs/reference/study.md"]
    definitions = StudySpec.model_json_schema()["$defs"]
    for name in ("WarmUp", "StudyEvaluation", "StopRule", "AxisRange", "Search"):
        assert f"\n## {name}\n" in page
        assert [field for field in definitions[name]["properties"] if f"| `{field}` |" not in page] == []
    assert [field for field in StudySpec.model_fields if f"| `{field}` |" not in page] == []


def test_metrics_page_has_every_metric_and_histogram() -> None:
    page = documents.pages()["docs/reference/metrics.md"]
    metrics = [metric for family in FAMILIES for metric in family.metrics]
    assert len(metrics) > 60
    assert [metric.name for metric in (*metrics, *HISTOGRAMS) if f"| `{metric.name}` |" not in page] == []


def test_pages_on_health_have_every_rule() -> None:
    rules, alerts = (
        documents.pages()[f"docs/{page}.md"] for page in ("reference/health-rules", "how-to/health-alerts")
    )
    assert [rule.name for rule in RULES if f"| `{rule.name}` |" not in rules] == []
    assert [rule.title for rule in RULES if f"\n### {rule.title}\n" not in alerts] == []


def test_files_and_folders_that_the_docs_name_exist() -> None:
    packages = "calibrl_core|calibrl|jobs|api|worker|dashboard|migrations|bench|tests|docs"
    named = re.compile(rf"`((?:{packages})/[a-z0-9_./-]*)`")
    missing = [
        f"{path}: {name}"
        for path, text in documents.written().items()
        for name in named.findall(text)
        if not (documents.ROOT / name).exists()
    ]
    assert missing == []


# ---- Examples


@per_block("python")
def test_python_examples_compile(block: Block) -> None:
    ast.parse(block.text)


@per_block("json")
def test_json_examples_are_valid(block: Block) -> None:
    json.loads(block.text)


@per_block("jsonl")
def test_jsonl_examples_are_valid(block: Block) -> None:
    for line in block.text.splitlines():
        assert isinstance(json.loads(line), dict)


@per_block("toml")
def test_toml_examples_are_valid(block: Block) -> None:
    tomllib.loads(block.text)


def completed(part: dict[str, Any]) -> dict[str, Any]:
    """Return a whole spec that contains a part of one."""
    whole: dict[str, Any] = {
        "kind": "train",
        "name": "example",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "steps": 1,
    }
    if "epochs" in part:
        del whole["steps"]
    return part if "kind" in part else whole | part


@per_block("yaml")
def test_yaml_examples_are_parts_of_a_spec_or_a_study(block: Block) -> None:
    part = yaml.safe_load(re.sub(r"\bID\b", SOME_ID, block.text))
    if isinstance(part, list):
        for _, spec in with_ids(part):
            job_spec_adapter.validate_python(spec)
    elif part.keys() <= StudySpec.model_fields.keys():
        expand(StudySpec.model_validate(STUDY | part))
    else:
        job_spec_adapter.validate_python(completed(part))


@pytest.mark.parametrize("path", sorted((documents.DOCS / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_files_are_specs_or_studies(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    if "seeds" in content:
        expand(StudySpec.model_validate(content))
    else:
        job_spec_adapter.validate_python(content)


# ---- Commands


def test_shell_blocks_become_commands() -> None:
    block = Block("x.md", 1, "sh", "A=1 calibrl jobs; calibrl show ID  # a comment\ncd x && make \\\n  test\n")
    assert documents.commands(block) == [["calibrl", "jobs"], ["calibrl", "show", "ID"], ["cd", "x"], ["make", "test"]]
    assert documents.commands(Block("x.md", 1, "console", "$ make test\nits output\n")) == [["make", "test"]]


def check_calibrl(words: list[str]) -> None:
    """Parse a command line as typer does, without reading a file or running anything."""
    command: Any = typer.main.get_command(cli_app)
    context = command.context_class(command, info_name="calibrl")
    rest = words[1:]
    while True:
        values, rest, _ = command.make_parser(context).parse_args(rest)
        inner = getattr(command, "commands", {})
        if not inner or not rest:
            break
        assert rest[0] in inner, f"there is no command {rest[0]}"
        command = inner[rest[0]]
        context = command.context_class(command, info_name=rest[0], parent=context)
        rest = rest[1:]
    missing = [parameter.name for parameter in command.params if parameter.required and not values.get(parameter.name)]
    assert (missing, rest) == ([], [])
    assert not inner or command.invoke_without_command or any(values.values()), "a command is missing"


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (documents.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [word for word in words[1:] if "=" not in word and word not in targets] == []


def check_module(words: list[str]) -> None:
    """`python -m MODULE`, and programs that take `-m MODULE` or `-A MODULE`: ours exist."""
    name = next((words[index + 1] for index, word in enumerate(words[:-1]) if word in ("-m", "-A")), None)
    if name == "pytest":
        assert [word for word in words if word.startswith("tests/") and not (documents.ROOT / word).exists()] == []
    elif name not in ("pip", "pre_commit"):
        assert name is not None
        path = documents.ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((documents.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for named in re.findall(r"^(?:\.|calibrl)\[(.+)\]$", word):
            assert set(named.split(",")) <= extras.keys()


def check_docker(words: list[str]) -> None:
    services = yaml.safe_load((documents.ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    assert words[1] == "compose"
    assert {words[index + 1] for index, word in enumerate(words) if word == "--profile"} <= profiles


def check_curl(words: list[str]) -> None:
    """The address and method are a route of the API, and a JSON body is JSON."""
    from api.main import app

    (address,) = [word for word in words if "CALIBRL_API_URL" in word]
    path = re.sub(r"^\$\{?CALIBRL_API_URL\}?", "", address).partition("?")[0]
    options = dict(itertools.pairwise(words))
    method = options.get("-X", "POST" if {"-d", "-F"} & options.keys() else "GET").lower()
    routes = [route for route, found in app.openapi()["paths"].items() if method in found]
    patterns = [re.sub(r"\{\w+\}", "[^/]+", route) for route in routes]
    assert any(re.fullmatch(pattern, path) for pattern in patterns), f"{method} {path}"
    if "-d" in options:
        json.loads(options["-d"])


def check_copy(words: list[str]) -> None:
    assert (documents.ROOT / words[1]).is_file()


def accept(words: list[str]) -> None:
    """Commands of the shell and of other projects."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "calibrl": check_calibrl,
    "make": check_make,
    "python": check_module,
    "accelerate": check_module,
    "torchrun": check_module,
    "celery": check_module,
    "pip": check_pip,
    "docker": check_docker,
    "curl": check_curl,
    "cp": check_copy,
    ".": accept,
    "export": accept,
    "git": accept,
    "pre-commit": accept,
}


@per_block("sh", "console")
def test_every_command_exists_with_its_options(block: Block) -> None:
    for words in documents.commands(block):
        program = programs.named(words)[0]
        assert program in CHECKS, f"no check for {' '.join(words)}"
        if program == "python" and words[1:3] == ["-m", "pip"]:
            program = "pip"
        CHECKS[program](words)


@pytest.mark.parametrize(
    "line",
    ["calibrl jobs --stat failed", "calibrl sumbit my.yaml", "calibrl show", "make everything", "python -m jobs.no"],
)
def test_the_check_of_commands_finds_mistakes(line: str) -> None:
    with pytest.raises(Exception, match=r".+"):
        test_every_command_exists_with_its_options(Block("x.md", 1, "sh", line))


@per_block("sh", "console")
def test_every_command_has_a_way_to_run_or_a_reason_why_not(block: Block) -> None:
    """tests/integration/test_docs_commands.py runs the commands."""
    for words in documents.commands(block):
        way = programs.match(programs.WAYS, words) is not None or programs.named(words)[0] == "calibrl"
        reason = programs.match(programs.NOT_RUN, words)
        assert way or reason, f"tests/support/programs.py knows no way to run {' '.join(words)}"


def test_the_docs_have_every_command_that_no_test_runs() -> None:
    lines = [words for _, words in documents.command_lines()]
    unused = [key for key in programs.NOT_RUN if not any(programs.match({key: key}, words) for words in lines)]
    assert unused == []


def test_only_known_languages_are_fenced() -> None:
    """With an unknown language an example would escape these tests."""
    known = {"sh", "console", "yaml", "json", "jsonl", "toml", "python", ""}
    found = {block.language for block in documents.blocks(*known)}
    every = set(re.findall(r"^```(\w+)$", "\n".join(documents.written().values()), re.MULTILINE))
    assert every <= found
