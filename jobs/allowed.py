"""What of the server's files, and of the hub, jobs may read."""

from fnmatch import fnmatchcase
from pathlib import Path

from jobs.settings import get_settings


def path_problem(path: Path) -> str | None:
    """Why jobs may not read a path, None where they may. Links count as what they lead to."""
    roots = [Path(root) for root in get_settings().allowed_roots.split(":") if root]
    try:
        real = path.resolve()
        allowed = any(real.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
        return f"{path} is no path that can be read"
    if allowed:
        return None
    where = ", ".join(map(str, roots)) or "none"
    return f"jobs may not read {path}: it is outside the allowed folders ({where}; set by CALIBRL_ALLOWED_ROOTS)"


def hub_problem(name: str) -> str | None:
    """Why jobs may not load a data set of the hub, None where they may."""
    allowed = get_settings().allowed_hub
    if any(fnmatchcase(name, pattern.strip()) for pattern in allowed.split(",")):
        return None
    return f"jobs may not load {name}: allowed is {allowed or 'none'} (set by CALIBRL_ALLOWED_HUB)"
