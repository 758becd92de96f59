"""Reads the description of a study from a YAML or JSON file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibrl.schemas.studies import StudySpec, faults
from calibrl.specfile import SpecError, load_file, make_paths_absolute


def read_study(path: Path) -> StudySpec:
    """Return the study of a file. Relative paths of models and data become absolute, from the folder of the file. The
    service checks the jobs.

    Raises:
        SpecError: the file or the study is invalid.
    """
    content = load_file(path)
    if not isinstance(content, dict):
        raise SpecError(f"{path}: a study is a mapping with `name`, `base`, `seeds` and `evaluation`")
    _make_all_absolute(content, path.resolve().parent)
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{path}: {faults(error)}") from None


def _make_all_absolute(content: dict[str, Any], folder: Path) -> None:
    specs = [content.get("base"), content.get("evaluation")]
    arms, warm_up = content.get("arms"), content.get("warm_up")
    changes = [*arms.values()] if isinstance(arms, dict) else []
    changes.append(warm_up.get("changes") if isinstance(warm_up, dict) else None)
    for spec in specs:
        if isinstance(spec, dict):
            make_paths_absolute(spec, folder)
    for change in changes:
        if isinstance(change, dict):
            _make_changes_absolute(change, folder)
    if isinstance(axes := content.get("axes"), dict):
        for path, values in axes.items():
            axes[path] = [_absolute(path, one, folder) for one in values] if isinstance(values, list) else values


def _make_changes_absolute(changes: dict[str, Any], folder: Path) -> None:
    for path, value in changes.items():
        changes[path] = _absolute(path, value, folder)


def _absolute(path: Any, value: Any, folder: Path) -> Any:
    """Return the value of a change with absolute paths: of a source as a whole, or of its field `path`."""
    keys = str(path).split(".")
    spec: dict[str, Any] = {}
    inner: Mapping[str, Any] | Any = value
    for key in reversed(keys):
        inner = {key: inner}
    spec = dict(inner)
    make_paths_absolute(spec, folder)
    found: Any = spec
    for key in keys:
        found = found[key]
    return found
