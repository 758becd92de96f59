"""Fake GPUs of a test. Put `FOLDER` first on PYTHONPATH, and a process finds its `pynvml` before the real one.

The file named by the variable FAKE_NVML has the state of the GPUs. Without the file there is no driver.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass
class Card:
    """Memory in GiB, utilisation in percent; `fails`: every question about it ends in an error."""

    name: str = "NVIDIA H100 80GB HBM3"
    total: float = 80
    used: float = 0.5
    utilisation: int = 0
    fails: bool = False


def write(path: Path, cards: list[Card]) -> None:
    """Replace the states of all GPUs atomically, for readers at the same time."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(card) for card in cards]))
    partial.replace(path)


def environment(path: Path, inherited: dict[str, str]) -> dict[str, str]:
    """The environment of a process that sees the cards of this file."""
    folders = [str(FOLDER), *filter(None, [inherited.get("PYTHONPATH")])]
    return inherited | {"FAKE_NVML": str(path), "PYTHONPATH": ":".join(folders)}
