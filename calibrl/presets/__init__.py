"""Whole job specs to begin with: a YAML file each, whose first line is a comment that says what it is for."""

from importlib import resources

_FILES = resources.files(__package__)


def names() -> list[str]:
    """The presets, by name."""
    return sorted(file.name.removesuffix(".yaml") for file in _FILES.iterdir() if file.name.endswith(".yaml"))


def text(name: str) -> str:
    """The YAML of one of `names()`. Raises KeyError for another name."""
    if name not in names():
        raise KeyError(name)
    return _FILES.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """The first line of a preset, without its `#`. Raises KeyError."""
    return text(name).split("\n", 1)[0].removeprefix("# ")
