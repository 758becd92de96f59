"""Packages with entry points, installed into a folder for a test."""

import re
import tomllib
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "extend.md"


def install(folder: Path, files: dict[str, str], project: dict[str, Any]) -> Path:
    """Put a package's files and its metadata where Python finds both, as pip does."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def install_page(folder: Path) -> Path:
    """Install the package of docs/how-to/extend.md: its Python blocks are the files, its TOML block the metadata."""
    files = dict(re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    targets = {point.partition(":")[0] for points in project["entry-points"].values() for point in points.values()}
    assert {name.removesuffix(".py").replace("/", ".") for name in files} == targets
    return install(folder, files, project)
