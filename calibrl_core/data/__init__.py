"""Data sets: `load` any source that a config may name."""

from calibrl_core.data.schema import BuiltinData, DataSource, Example


def load(source: DataSource) -> list[Example]:
    """All examples of a source, in its order. Raises DataError, which names every bad row, or OSError."""
    from calibrl_core.data import digits, files  # here: whoever only wants the settings need not load numpy

    return digits.load(source) if isinstance(source, BuiltinData) else files.load(source)
