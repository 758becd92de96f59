"""Files of the server, and datasets and models of the hub, that jobs are allowed to read."""

from fnmatch import fnmatchcase
from pathlib import Path

from calibrl_core.run.path_bounds import PathBounds
from jobs.settings import get_settings


def bounds() -> PathBounds:
    """Return the folders that jobs can read from, and those that hold what the service keeps."""
    settings = get_settings()
    return PathBounds(tuple(Path(root) for root in settings.allowed_roots.split(":") if root), settings.closed_folders)


def data_problem(path: Path) -> str | None:
    """Return why jobs cannot read a data file or a folder of shards, or None if they can. A link counts as its
    target."""
    return bounds().data_problem(path)


def path_problem(path: Path) -> str | None:
    """Return why jobs cannot read a path, or None if they can. A link counts as its target."""
    return bounds().problem(path)


def model_problem(path: Path) -> str | None:
    """Return why jobs cannot load a model folder (with all its files) or a GGUF file, or None if they can."""
    return bounds().model_problem(path)


def kept_model_problem(path: Path) -> str | None:
    """Return why jobs cannot load a model folder that the service keeps for them, or None if they can."""
    return bounds().own_problem(path)


def hub_problem(name: str) -> str | None:
    """Return why jobs cannot load a dataset of the hub, or None if they can."""
    return _name_problem(name, get_settings().allowed_hub, "CALIBRL_ALLOWED_HUB")


def hub_model_problem(name: str) -> str | None:
    """Return why jobs cannot name a model of the hub, or None if they can."""
    return _name_problem(name, get_settings().allowed_hub_models, "CALIBRL_ALLOWED_HUB_MODELS")


def _name_problem(name: str, allowed: str, setting: str) -> str | None:
    if any(fnmatchcase(name, pattern.strip()) for pattern in allowed.split(",")):
        return None
    return f"jobs cannot load {name}: allowed are {allowed or 'none'} (set by {setting})"
