"""Complete job specs to start from: one YAML file each. The first line is a comment with its purpose."""

from importlib import resources

__all__ = ["names", "summary", "text"]

_FILES = resources.files(__package__)


def names() -> list[str]:
    """Return the names of the presets."""
    return sorted(file.name.removesuffix(".yaml") for file in _FILES.iterdir() if file.name.endswith(".yaml"))


def text(name: str) -> str:
    """Return the YAML of a preset.

    Raises:
        KeyError: there is no preset of that name.
    """
    if name not in names():
        raise KeyError(name)
    return _FILES.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """Return the first line of a preset without `# `.

    Raises:
        KeyError: there is no preset of that name.
    """
    return text(name).split("\n", 1)[0].removeprefix("# ")
