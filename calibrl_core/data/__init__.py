"""Datasets: `load` reads any source that a config can name."""

from calibrl_core.data.schema import BuiltinData, DataSource, Example


def load(source: DataSource) -> list[Example]:
    """Return all examples of a source, in its order.

    Raises:
        DataError: rows are invalid; the message names each of them.
        OSError: files.
    """
    from calibrl_core.data import files
    from calibrl_core.data.builtin import digits, geometry

    if not isinstance(source, BuiltinData):
        return files.load(source)
    return digits.load(source) if source.builtin == "digits" else geometry.load(source)
