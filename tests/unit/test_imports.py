"""Checks of the structure: imports, class names, reads of the environment, SQL, and processes in unit tests."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What of the trainer others may know: its settings and its event file, which import without torch.
CONTRACT = tuple(
    f"calibrl_core.{name}"
    for name in (
        "algorithms",
        "evaluation.bootstrap",
        "evaluation.group_sequential",
        "evaluation.study_statistics",
        "settings",
        "auditing.facts",
        "auditing.settings",
        "bisection.facts",
        "bisection.settings",
        "variants.facts",
        "variants.settings",
        "config",
        "host",
        "health.settings",
        "data.files",
        "data.hub_head",
        "data.image_decoding",
        "data.image_keys",
        "data.images",
        "data.json_rows",
        "data.kept_rows",
        "data.repeats",
        "data.report",
        "data.report_facts",
        "data.schema",
        "data.shards",
        "data.source_facts",
        "metrics",
        "plugins",
        "report",
        "run.path_bounds",
        "run.process_checks",
        "models.token_counts",
        "verifiers",
    )
)
ALLOWED = {
    "calibrl_core": (),
    "jobs": ("calibrl.presets", "calibrl.processes", "calibrl.schemas", "calibrl.settings", *CONTRACT),
    "api": ("calibrl.presets", "calibrl.schemas", "calibrl.studies", "jobs", *CONTRACT),
    "worker": ("calibrl.processes", "calibrl.schemas", "calibrl.settings", "jobs", *CONTRACT),
    "calibrl": CONTRACT,
    "dashboard": (
        "calibrl.client",
        "calibrl.presets",
        "calibrl.schemas",
        "calibrl.settings",
        "calibrl_core.health",
        "calibrl_core.metrics",
        "calibrl_core.plugins",
    ),
    "migrations": ("jobs.models", "jobs.settings"),
    # It replaces trainers and workers: it ships what it writes, and fills tables through repositories.
    "bench": ("calibrl_core", "calibrl", "jobs", "worker"),
}
# Folders of each package, from the bottom up: a folder may import those before it.
FOLDERS = {
    "calibrl_core": (
        "host",
        "settings",
        "health",
        "distributed",
        "verifiers",
        "data",
        "algorithms",
        "models",
        "rollout",
        "metrics",
        "diagnostics",
        "step",
        "evaluation",
        "auditing",
        "variants",
        "bisection",
        "run",
    ),
    "jobs": (
        *("models", "repository", "access", "processes", "files", "specs", "evaluations"),
        *("insight", "scheduling", "alerts", "lifecycle", "studies", "openai", "planning", "webhooks"),
    ),
    "api": ("routes",),
    "worker": (),
    "calibrl": ("schemas", "presets", "processes", "client", "studies", "views", "stack", "commands"),
    "dashboard": ("charts", "reads", "forms", "views", "panels", "app_pages"),
}
BASE = {"filelock", "httpx", "pydantic", "pydantic_core", "pydantic_settings", "rich", "tenacity", "typer", "yaml"}
WITH_TORCH = ("calibrl_core", "bench")
TORCH = ("torch", "transformers", "safetensors", "accelerate", "peft")
SQL_NAMES = frozenset(
    {"select", "insert", "update", "delete", "text", "func", "exists", "union", "values", "bindparam"}
)
SQL_CALLS = frozenset({"execute", "executemany", "scalar", "scalars", "query", "exec_driver_sql"})
SQL_TEXT = re.compile(r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s)")


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and module of everything imported anywhere in a file; `from jobs import db` names jobs.db."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + (node.module.split(".") if node.module else []))
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield node.lineno, inner if module.split(".")[0] in ALLOWED and is_module(inner) else module


def within(module: str, roots: tuple[str, ...]) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def forbidden_imports(path: Path, tree: ast.AST) -> Iterator[str]:
    package = path.relative_to(ROOT).parts[0]
    for line, module in imports(path, tree):
        ours = module.split(".")[0] in ALLOWED
        if ours and not within(module, (package, *ALLOWED[package])):
            yield f"line {line}: {package} may not import {module}"
        if package not in WITH_TORCH and within(module, TORCH):
            yield f"line {line}: only {' and '.join(WITH_TORCH)} may import {module}"


def room(package: str, module: str) -> str:
    """Return the folder or root module of a package that a module belongs to; "" for the package itself."""
    return ".".join(module.split(".")[1:2]) if within(module, (package,)) else ""


def room_imports(package: str) -> dict[str, set[str]]:
    """Return the rooms of a package that each of its rooms imports. Imports for type checkers only do not count."""
    arrows: dict[str, set[str]] = {}
    for path in sources(package):
        tree = parsed(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                node.body = []
        own = path.relative_to(ROOT / package).with_suffix("").parts[0]
        if own == "__init__":
            continue
        named = {room(package, module) for _, module in imports(path, tree)}
        arrows.setdefault(own, set()).update(named - {own, ""})
    return arrows


def duplicate_classes(paths: list[Path]) -> dict[str, list[str]]:
    """Return the names of classes that several modules define for different things, with the modules.

    Of the same thing are: a table and the REST record of its resource (`jobs/models/x.py`, `calibrl/schemas/x.py`), and
    a class and its base of the same name.
    """
    modules = defaultdict[str, list[str]](list)
    for path in paths:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and node.name not in [ast.unparse(b).split(".")[-1] for b in node.bases]:
                modules[node.name].append(str(path.relative_to(ROOT)))
    resources = [f"{path.stem}.py" for path in paths]
    pairs = [[f"calibrl/schemas/{name}", f"jobs/models/{name}"] for name in resources]
    return {name: where for name, where in modules.items() if len(where) > 1 and sorted(where) not in pairs}


def environment_reads(path: Path, tree: ast.AST) -> Iterator[str]:
    """Variables read by name. Handing the whole environment on to a child process is no reading of settings."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="os", names=names) if {name.name for name in names} & {"environ", "getenv"}:
                yield f"line {node.lineno}: from os import environ or getenv"
            case ast.Attribute(value=ast.Name(id="os"), attr="getenv" | "putenv"):
                yield f"line {node.lineno}: os.{node.attr}"
            case ast.Attribute(value=ast.Attribute(attr="environ"), attr="get" | "pop" | "setdefault" | "update"):
                yield f"line {node.lineno}: os.environ.{node.attr}"
            case ast.Subscript(value=ast.Attribute(attr="environ")):
                yield f"line {node.lineno}: os.environ[...]"
            case ast.Compare(comparators=[ast.Attribute(attr="environ")]):
                yield f"line {node.lineno}: ... in os.environ"


def sql(path: Path, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if within(module, ("sqlalchemy",)):
                yield from (f"line {node.lineno}: imports {n.name} from {module}" for n in names if n.name in SQL_NAMES)
            case ast.Call(func=ast.Attribute(attr=name)) if name in SQL_CALLS:
                yield f"line {node.lineno}: calls .{name}()"
            case ast.Constant(value=str(text)) if SQL_TEXT.match(text):
                yield f"line {node.lineno}: the statement {text.strip()[:30]!r}"


@cache
def algorithm_classes() -> frozenset[str]:
    """Return the names of the algorithms' classes: bases, families and single algorithms."""
    trees = [parsed(path) for path in (ROOT / "calibrl_core" / "algorithms").glob("*.py")]
    classes = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    names = {"AlgorithmSettings"}
    while more := {
        name
        for name, node in classes.items()
        if name not in names and any(isinstance(base, ast.Name) and base.id in names for base in node.bases)
    }:
        names |= more
    return frozenset(names)


@cache
def algorithm_types() -> frozenset[str]:
    """Return the names of the built-in algorithms in specs."""
    trees = [parsed(path) for path in (ROOT / "calibrl_core" / "algorithms").glob("*.py")]
    fields = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    return frozenset(
        str(field.value.value)
        for field in fields
        if isinstance(field.target, ast.Name) and field.target.id == "type" and isinstance(field.value, ast.Constant)
    )


def comparisons_with_algorithm_types(path: Path, tree: ast.AST) -> Iterator[str]:
    """`==`, `!=`, `in` and `match` with the name of one algorithm."""
    types = algorithm_types()
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=comparators):
                compared = [left, *comparators]
            case ast.MatchValue(value=value):
                compared = [value]
            case _:
                continue
        collections = [each for each in compared if isinstance(each, ast.Tuple | ast.List | ast.Set)]
        values = [*compared, *(element for collection in collections for element in collection.elts)]
        names = {each.value for each in values if isinstance(each, ast.Constant) and isinstance(each.value, str)}
        if found := names & types:
            yield f"line {node.lineno}: compares with {', '.join(sorted(found))}; give the algorithms a hook instead"


def branches_on_algorithms(path: Path, tree: ast.AST) -> Iterator[str]:
    """`isinstance`, `issubclass` and `match` on a class of algorithms. An `assert` does not branch."""
    classes = algorithm_classes()
    asserted = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Assert) for part in ast.walk(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]) if id(node) not in asserted:
                named = [part for part in ast.walk(kinds) if isinstance(part, ast.Name | ast.Attribute)]
            case ast.MatchClass(cls=kind):
                named = [part for part in ast.walk(kind) if isinstance(part, ast.Name | ast.Attribute)]
            case _:
                continue
        names = {part.id if isinstance(part, ast.Name) else part.attr for part in named} & classes
        if names:
            yield f"line {node.lineno}: branches on {', '.join(sorted(names))}; give the algorithms a hook instead"


Check = Callable[[Path, ast.AST], Iterator[str]]


def faults(paths: list[Path], check: Check) -> list[str]:
    return [f"{path.relative_to(ROOT)}, {fault}" for path in paths for fault in check(path, parsed(path))]


def test_each_package_imports_only_what_it_may() -> None:
    assert faults(sources(*ALLOWED), forbidden_imports) == []


@pytest.mark.parametrize("package", FOLDERS)
def test_the_folders_of_a_package_import_only_downwards(package: str) -> None:
    order = FOLDERS[package]
    assert sorted(order) == sorted({path.parent.name for path in (ROOT / package).glob("*/*.py")})
    arrows = room_imports(package)
    upwards = [
        f"{package}/{low} imports {package}/{high}"
        for index, low in enumerate(order)
        for high in order[index + 1 :]
        if high in arrows.get(low, ())
    ]
    assert upwards == []
    TopologicalSorter(arrows).prepare()  # raises CycleError: also modules at the root import each other in no circle


def test_no_class_name_means_two_things() -> None:
    assert duplicate_classes(sources(*FOLDERS, "bench")) == {}


def test_the_client_needs_only_the_base_installation() -> None:
    # Extras: `calibrl up` needs `local`; pandas, matplotlib and MLflow are imported by the functions that use them.
    extras = (ROOT / "calibrl" / "stack", ROOT / "calibrl" / "mlflow_mirror.py")
    paths = [path for path in sources("calibrl") if not set(extras) & {path, *path.parents}]
    roots = {module.split(".")[0] for path in paths for _, module in imports(path, parsed(path))}
    assert roots - {*sys.stdlib_module_names, "calibrl", "calibrl_core", "pandas", "matplotlib"} == BASE


def test_only_the_settings_read_the_environment() -> None:
    # A waiting trainer gets the variables of its job, and sets them.
    settings = (ROOT / "calibrl" / "settings.py", ROOT / "jobs" / "settings.py")
    allowed = (*settings, ROOT / "calibrl_core" / "run" / "standby.py")
    paths = [path for path in sources(*ALLOWED) if path not in allowed]
    assert faults(paths, environment_reads) == []


def test_unit_tests_import_nothing_that_starts_processes() -> None:
    """Tests that start a process are in tests/process; tests/unit/conftest.py refuses every start."""
    starts = ("subprocess", "multiprocessing", "pty", "calibrl.processes.children", "jobs.processes.sandbox")
    found = [
        f"{path.relative_to(ROOT)}, line {line}: {module}"
        for path in sources("tests/unit")
        if path != ROOT / "tests" / "unit" / "conftest.py"
        for line, module in imports(path, parsed(path))
        if within(module, starts)
    ]
    assert found == []


def test_only_the_repository_contains_sql() -> None:
    """Tables name SQL functions as defaults; migrations, and the settings of servers and connections are no queries."""
    allowed = (ROOT / "jobs" / "repository", ROOT / "jobs" / "models", ROOT / "jobs" / "db.py")
    paths = [path for path in sources("api", "dashboard", "jobs", "worker") if not set(allowed) & {path, *path.parents}]
    assert faults(paths, sql) == []


def test_only_the_algorithms_know_single_algorithms() -> None:
    assert {"CalibRL", "SFT", "LearnsFromExperts", "RLPlus", "PolicyGradientSettings"} <= algorithm_classes()
    own = ROOT / "calibrl_core" / "algorithms"
    paths = [path for path in sources(*ALLOWED) if own not in path.parents]
    assert faults(paths, branches_on_algorithms) == []
    named = {
        ROOT / "calibrl_core" / "parity.py",  # methods of the reference's file, by the names in that file
        ROOT / "calibrl" / "commands" / "demo.py",  # its own runs, which are named after their algorithms
        ROOT / "bench" / "arms" / "ours.py",  # its own cases
    }
    assert {"calibrl", "sft", "grpo"} <= algorithm_types()
    assert faults([path for path in paths if path not in named], comparisons_with_algorithm_types) == []


@pytest.mark.parametrize(
    ("check", "package", "code", "found"),
    [
        (forbidden_imports, "api", "from worker import tasks", 1),
        (forbidden_imports, "api", "from jobs import db\nimport jobs.models", 0),
        (forbidden_imports, "calibrl", "from jobs import db", 1),
        (forbidden_imports, "calibrl", "from calibrl_core import config\nfrom . import client", 0),
        (forbidden_imports, "calibrl_core", "from calibrl.schemas import Job", 1),
        (forbidden_imports, "jobs", "def f():\n    from calibrl_core import train", 1),
        (forbidden_imports, "worker", "import torch.cuda", 1),
        (forbidden_imports, "dashboard", "from calibrl import client, cli", 1),
        (forbidden_imports, "bench", "import torch\nfrom calibrl_core import train", 0),
        (forbidden_imports, "bench", "from api import main", 1),
        (forbidden_imports, "calibrl_core", "from bench import report", 1),
        (environment_reads, "worker", "import os\nos.environ['A']", 1),
        (environment_reads, "worker", "import os\nos.getenv('A'), os.environ.get('B'), 'C' in os.environ", 3),
        (environment_reads, "worker", "from os import environ", 1),
        (environment_reads, "worker", "import os\nenv = dict(os.environ) | {'A': '1'}", 0),
        (sql, "api", "from sqlalchemy import select", 1),
        (sql, "api", "from sqlalchemy.orm import Session", 0),
        (sql, "api", "session.execute(statement)", 1),
        (sql, "api", "x = 'SELECT 1'", 1),
        (sql, "api", "'''Select the newest.'''", 0),
        (branches_on_algorithms, "jobs", "isinstance(x, SFT)", 1),
        (branches_on_algorithms, "jobs", "isinstance(x, int | dapo.DAPO)", 1),
        (branches_on_algorithms, "jobs", "match x:\n    case CalibRL():\n        pass", 1),
        (branches_on_algorithms, "jobs", "isinstance(x, PolicyGradientSettings)", 1),
        (branches_on_algorithms, "jobs", "assert isinstance(x, PolicyGradientSettings)", 0),
        (comparisons_with_algorithm_types, "jobs", "x['type'] != 'calibrl'", 1),
        (comparisons_with_algorithm_types, "jobs", "x in ('sft', 'other')", 1),
        (comparisons_with_algorithm_types, "jobs", "match x:\n    case 'grpo':\n        pass", 1),
        (comparisons_with_algorithm_types, "jobs", "spec = {'type': 'sft'}", 0),
    ],
)
def test_the_checks_see_what_they_look_for(check: Check, package: str, code: str, found: int) -> None:
    assert len(list(check(ROOT / package / "module.py", ast.parse(code)))) == found
