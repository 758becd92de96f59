"""Data sets: `load` any source that a config may name."""

from calibrl_core.data.schema import BuiltinData, DataSource, Example


def load(source: DataSource) -> list[Example]:
    """All examples of a source, in its order. Raises DataError, which names every bad row, or OSError."""
    from calibrl_core.data import files
    from calibrl_core.data.builtin import digits, geometry

    if not isinstance(source, BuiltinData):
        return files.load(source)
    return digits.load(source) if source.builtin == "digits" else geometry.load(source)
