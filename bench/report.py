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
class ReportRow:
    """A measure with its figures and goal."""

    measure: str
    ours: float
    peer: float
    ratio: float  # the ratio in `goal`; without a goal peer / ours
    unit: str  # of ours and peer
    goal: str | None
    met: bool | None


def at_least(measure: str, ours: float, peer: float, unit: str, times: float) -> ReportRow:
    """Return a row with the goal that the peer takes at least `times` times as long as ours."""
    ratio = peer / ours
    return ReportRow(measure, ours, peer, ratio, unit, f"peer / ours >= {times:g}", ratio >= times)


def at_most(measure: str, ours: float, peer: float, unit: str, share: float) -> ReportRow:
    """Return a row with the goal that ours is at most this share of the peer's."""
    ratio = ours / peer
    return ReportRow(measure, ours, peer, ratio, unit, f"ours / peer <= {share:g}", ratio <= share)


def within(measure: str, ours: float, unit: str, goal: float) -> ReportRow:
    """Return a row whose goal is an upper limit; the limit takes the place of a peer's figure."""
    return ReportRow(measure, ours, goal, ours / goal, unit, f"<= {goal:g} {unit}", ours <= goal)


def no_goal(measure: str, ours: float, peer: float, unit: str) -> ReportRow:
    """Return a row without a goal."""
    return ReportRow(measure, ours, peer, peer / ours, unit, None, None)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that is greater than or equal to at least this share of them."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def write(name: str, rows: Sequence[ReportRow], folder: Path = RESULTS) -> Path:
    """Write `folder/<name>.json`: a list of {measure, ours, peer, ratio, unit, goal, met}."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return path


def table(rows: Sequence[ReportRow]) -> str:
    """Return the rows as a Markdown table."""
    cells = [["Measure", "Ours", "Peer", "Unit", "Ratio", "Goal", "Met"]]
    for row in rows:
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        cells.append(
            [row.measure, f"{row.ours:.3g}", f"{row.peer:.3g}", row.unit, f"{row.ratio:.2f}", row.goal or "", met]
        )
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Return cells as a Markdown table with columns of equal width; the first line is the head."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def circumstances(packages: Sequence[str]) -> str:
    """Return date, machine and versions, without which figures cannot be interpreted."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}, {versions}"


def machine() -> str:
    """Return the GPU if there is one, the processor, its cores and the memory."""
    import torch

    from calibrl_core.run.surroundings import processor

    card = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{card}{processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB"


def load_warning() -> str | None:
    """Return a warning if other processes keep the machine busy: times are then too long and vary."""
    busy = os.getloadavg()[0]
    return (
        f"The load average is {busy:.1f}: other work runs here, and will disturb the figures." if busy > 0.5 else None
    )
