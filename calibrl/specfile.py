"""Reads the spec of a job from a YAML or JSON file, with overrides from the command line."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from calibrl.schemas import JobSettings, job_spec_adapter
from calibrl.schemas.spec_paths import set_fields
from calibrl.schemas.yaml_text import YamlError, parsed_yaml
from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.config import EvaluateConfig, TrainConfig

STANDARD_INPUT = Path("-")
TrainerConfig = TrainConfig | EvaluateConfig | AuditConfig
CONFIGS: dict[str, type[TrainConfig] | type[EvaluateConfig] | type[AuditConfig]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "audit": AuditConfig,
}


class SpecError(ValueError):
    """A spec file or an override is invalid. The message is one line with place and remedy."""


def read_spec(path: Path, overrides: Sequence[str], unset: Sequence[str] = ()) -> dict[str, Any]:
    """Return the spec of a file with each `key.path=value` applied, then without the fields `unset`.

    Relative paths of models and data become absolute: paths in the file from the folder of the file, paths in
    overrides from the current folder. The path `-` is standard input, whose paths count from the current folder.

    Raises:
        SpecError: the file or an override is invalid.
    """
    spec = read_specs(path, overrides, unset)
    if not isinstance(spec, dict):
        raise SpecError(f"{path}: this is a list of specs; only `calibrl submit` takes several")
    return spec


def read_config(path: Path, overrides: Sequence[str], unset: Sequence[str] = ()) -> TrainerConfig:
    """Return the config of the trainer for the spec of a file; as `read_spec`. What only the service can look up, such
    as a checkpoint of a job, cannot be named.

    Raises:
        SpecError: the file or an override is invalid, the spec names something of the service, or its kind has no
            config of its own.
        ValidationError: fields of the spec are not valid.
    """
    spec = job_spec_adapter.validate_python(read_spec(path, overrides, unset))
    settings = spec.model_dump(mode="json", exclude={*JobSettings.model_fields, "kind"})
    config = CONFIGS.get(spec.kind)
    if config is None:
        raise SpecError(f"{path}: only specs of the kinds {', '.join(CONFIGS)} have a config: submit this one")
    for source in _sources(settings):
        of_service = {"from_job", "dataset"} if "split" in source else {"from_job", "dataset", "hub"}
        if named := of_service & source.keys():
            raise SpecError(f"{path}: {named.pop()} is known to the service only: name a folder or file by its path")
    return config.model_validate(settings)


def read_specs(
    path: Path, overrides: Sequence[str], unset: Sequence[str] = ()
) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the spec of a file, or the list of specs of a pipeline; as `read_spec`. Overrides of a list begin with a
    number from 0: `1.steps=40`.

    Raises:
        SpecError: the file or an override is invalid.
    """
    spec = load_file(path)
    specs = spec if isinstance(spec, list) else [spec]
    if not specs or not all(isinstance(one, dict) for one in specs):
        raise SpecError(f"{path}: the spec of a job is a mapping that begins with its kind, such as `kind: train`")
    folder = Path.cwd() if path == STANDARD_INPUT else path.resolve().parent
    for one in specs:
        make_paths_absolute(one, folder)
    _override_all(spec, overrides)
    for key in unset:
        _unset(spec, key)
    for one in specs:
        make_paths_absolute(one, Path.cwd())
    return spec  # type: ignore[no-any-return]


def with_fields(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a spec with fields set by their paths. Relative paths become absolute.

    Raises:
        SpecError: a path leads nowhere.
    """
    changed = deepcopy(dict(spec))
    try:
        set_fields(changed, deepcopy(dict(changes)))
    except ValueError as error:
        raise SpecError(str(error)) from None
    make_paths_absolute(changed, Path.cwd())
    return changed


def read_changes(overrides: Sequence[str], unset: Sequence[str] = ()) -> dict[str, Any]:
    """Return a merge patch that sets each `key.path=value`, and removes the fields `unset`. Relative paths become
    absolute.

    Raises:
        SpecError: an override is invalid.
    """
    changes: dict[str, Any] = {}
    _override_all(changes, overrides)
    for key in unset:
        *outer, last = key.split(".")
        place = changes
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise SpecError(f"--unset {key!r}: --set replaces what contains it")
        place[last] = None
    make_paths_absolute(changes, Path.cwd())
    return changes


def read_settings(text: str, option: str) -> dict[str, Any]:
    """Parse `key=value,key=value` of an option, each value as YAML.

    Raises:
        SpecError: the text is invalid.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise SpecError(f"{option} {text!r}: write it as key=value,key=value")
    return _unique([(key, _yaml(value, f"{option} {key}")) for key, _, value in pairs])


def _yaml(text: str, source: str) -> Any:
    try:
        return parsed_yaml(text)
    except YamlError as error:
        raise SpecError(
            f"{source}, {error.place}: {error.what}" if error.place else f"{source}: {error.what}"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise SpecError(f"{key!r} is given twice")
        result[key] = value
    return result


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def load_file(path: Path) -> Any:
    """Return the content of a YAML or JSON file.

    Raises:
        SpecError: the file cannot be read, or is invalid.
    """
    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    return _json(text, path) if path.suffix == ".json" else _yaml(text, str(path))


def _unset(spec: Any, key: str) -> None:
    *outer, last = key.split(".")
    place = spec
    for part in outer:
        if isinstance(place, list):
            place = place[int(part)] if part.isdecimal() and int(part) < len(place) else None
        else:
            place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise SpecError(f"--unset {key!r}: the spec has no such field")
    del place[last]


def _override_all(spec: Any, overrides: Sequence[str]) -> None:
    """Apply all overrides `a.b.0.c=value`, each value parsed as YAML. The last one of a path counts."""
    changes: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not all(path.split(".")):
            raise SpecError(f"--set {override!r}: write it as key=value, such as algorithm.negative_slope=0.3")
        changes.pop(path, None)
        changes[path] = _yaml(text, f"--set {path}")
    try:
        set_fields(spec, changes)
    except ValueError as error:
        raise SpecError(f"--set {error}") from None


def _sources(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each model and dataset of the spec."""
    validation = spec.get("validation")
    named = [spec.get("model"), spec.get("data"), validation.get("data") if isinstance(validation, dict) else None]
    named += [item for field in ("models", "data") if isinstance(spec.get(field), list) for item in spec[field]]
    return (source for source in named if isinstance(source, dict))


def make_paths_absolute(spec: dict[str, Any], folder: Path) -> None:
    """Make the paths of the models and datasets of a spec absolute: they are relative to `folder`."""
    for source in _sources(spec):
        if isinstance(source.get("path"), str) and source["path"]:
            source["path"] = str((folder / Path(source["path"]).expanduser()).resolve())
