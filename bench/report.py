"""Output of a benchmark: a table to read, and `results/<name>.json` for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """A measure with its figures and goal."""

    measure: str
    ours: float
    peer: float
    ratio: float  # what `goal` names; peer / ours where there is no goal
    unit: str  # of ours and peer
    goal: str | None
    met: bool | None


def at_least(measure: str, ours: float, peer: float, unit: str, times: float) -> Row:
    """Ours should fit into the peer's so many times."""
    ratio = peer / ours
    return Row(measure, ours, peer, ratio, unit, f"peer / ours >= {times:g}", ratio >= times)


def at_most(measure: str, ours: float, peer: float, unit: str, share: float) -> Row:
    """Ours should be no more than this share of the peer's."""
    ratio = ours / peer
    return Row(measure, ours, peer, ratio, unit, f"ours / peer <= {share:g}", ratio <= share)


def within(measure: str, ours: float, unit: str, goal: float) -> Row:
    """Return a row whose goal is an upper limit; the limit takes the place of a peer's figure."""
    return Row(measure, ours, goal, ours / goal, unit, f"<= {goal:g} {unit}", ours <= goal)


def no_goal(measure: str, ours: float, peer: float, unit: str) -> Row:
    """For the picture."""
    return Row(measure, ours, peer, peer / ours, unit, None, None)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of all are no greater than."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def write(name: str, rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """`folder/<name>.json`: a list of {measure, ours, peer, ratio, unit, goal, met}."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return path


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    cells = [["Measure", "Ours", "Peer", "Unit", "Ratio", "Goal", "Met"]]
    for row in rows:
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        cells.append(
            [row.measure, f"{row.ours:.3g}", f"{row.peer:.3g}", row.unit, f"{row.ratio:.2f}", row.goal or "", met]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def circumstances(packages: Sequence[str]) -> str:
    """Return date, machine and versions: figures mean nothing without them."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}, {versions}"


def machine() -> str:
    """The graphics card if there is one, the processor, its cores and the memory."""
    import torch

    card = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{card}{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load_warning() -> str | None:
    """A line to show if something else keeps the machine busy: times taken then are too long, and not alike."""
    busy = os.getloadavg()[0]
    return (
        f"The load average is {busy:.1f}: other work runs here, and will disturb the figures." if busy > 0.5 else None
    )
