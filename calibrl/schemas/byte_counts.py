"""Numbers of bytes as text, the same on the terminal and in the dashboard."""

from calibrl.schemas.base import GIB


def file_size(count: float) -> str:
    """Return the size of a file in decimal units: 512 bytes, 18.8 kB, 2.0 MB, 1.2 GB."""
    return _in_units(count, {"GB": 1e9, "MB": 1e6, "kB": 1e3})


def memory_size(count: float) -> str:
    """Return a size of memory in binary units, in which the memory of a GPU is sold: 1.5 KiB, 3.0 MiB, 80.0 GiB."""
    return _in_units(count, {"GiB": GIB, "MiB": 2**20, "KiB": 2**10})


def _in_units(count: float, units: dict[str, float]) -> str:
    for unit, factor in units.items():
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count:.0f} bytes"
