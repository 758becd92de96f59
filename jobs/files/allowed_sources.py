"""What of the server's files, and of the hub, jobs may read."""

from fnmatch import fnmatchcase
from pathlib import Path

from calibrl_core.contained import Bounds
from jobs.settings import get_settings


def bounds() -> Bounds:
    """Return the folders that jobs may read from, and those that hold what the service keeps."""
    settings = get_settings()
    return Bounds(tuple(Path(root) for root in settings.allowed_roots.split(":") if root), settings.closed_folders)


def path_problem(path: Path) -> str | None:
    """Return why jobs may not read a path, links followed; None: they may."""
    return bounds().problem(path)


def model_problem(path: Path) -> str | None:
    """Return why jobs may not load a model folder or a GGUF file, any of its files included; None: they may."""
    return bounds().model_problem(path)


def hub_problem(name: str) -> str | None:
    """Return why jobs may not load a data set of the hub, None where they may."""
    allowed = get_settings().allowed_hub
    if any(fnmatchcase(name, pattern.strip()) for pattern in allowed.split(",")):
        return None
    return f"jobs may not load {name}: allowed is {allowed or 'none'} (set by CALIBRL_ALLOWED_HUB)"
