"""Processes that start without the trainer's libraries."""

import subprocess
import sys

from tests.support import ROOT
from tests.support.waiting import LIMIT_SECONDS

MODULES = (
    "calibrl.schemas",
    "calibrl_core.evaluation.bootstrap",
    "calibrl_core.rescore",
    "jobs.lifecycle",
    "worker.tasks",
    "calibrl.cli",
    "calibrl.commands.demo",
    "api.main",
)


def imported(modules: tuple[str, ...], libraries: set[str]) -> str:
    """Return the first of the modules whose import, in a process of its own, brings one of the libraries, and those."""
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    if found := sorted({libraries} & set(sys.modules)):
        sys.exit(print(module, *found))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.strip()


def test_the_service_runs_without_torch() -> None:
    assert imported(MODULES, {"torch", "transformers", "streamlit"}) == ""


def test_the_inspection_of_a_file_imports_only_its_readers() -> None:
    """A user waits for this process with each upload."""
    assert imported(("jobs.files.inspection",), {"calibrl.schemas", "httpx", "structlog", "sqlalchemy"}) == ""


def test_an_import_of_a_library_is_found() -> None:
    assert imported(("jobs.errors", "jobs.settings"), {"pydantic_settings"}) == "jobs.settings pydantic_settings"
