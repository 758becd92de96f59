"""The results of all parts: the JSON file that a later run continues, and the table in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import report
from bench.gpu import training
from bench.gpu.findings import CheckPart, Item, Measure
from bench.gpu.runner import Result

ANCHORS = (
    "References: published figures of EasyR1 for Qwen2.5-VL-7B on 8 H100 with 512 x 5 rollouts: a step of "
    f"{training.PUBLISHED_STEP:.0f} s, {training.PUBLISHED_TOKENS:,.0f} tokens/s per GPU, "
    f"{training.PUBLISHED_MFU:.0%} model FLOPs utilisation; for decoding, the bandwidth limit of this card; for "
    "memory, the plan."
)


def file_name(card: str, *, small: bool) -> str:
    """Return the name of the results of a card without its ending: `gpu-nvidia-h200`."""
    plain = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    return f"gpu-{plain}{'-small' if small else ''}"


def load(path: Path) -> dict[str, Result]:
    """Return the results of the parts by name; empty if there is no file."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())["parts"]
    return {name: _result(one) for name, one in stored.items()}


def _result(stored: dict[str, object]) -> Result:
    items = stored.pop("items")
    assert isinstance(items, list)
    found: list[Item] = [one if isinstance(one, str) else Measure(**one) for one in items]
    return Result(**stored, items=found)  # type: ignore[arg-type]


def save(path: Path, circumstances: str, parts: Mapping[str, Result]) -> None:
    """Write the results, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"circumstances": circumstances, "parts": {name: asdict(one) for name, one in parts.items()}}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def open_parts(parts: Sequence[CheckPart], stored: Mapping[str, Result], *, again: bool) -> list[CheckPart]:
    """Return the parts to run: those without a complete result, or all."""
    return [part for part in parts if again or part.name not in stored or stored[part.name].status != "done"]


def markdown(circumstances: str, parts: Sequence[CheckPart], stored: Mapping[str, Result]) -> str:
    """Return the page of the results: a table per part, in the order of `parts`."""
    lines = ["# Check on a GPU", "", circumstances, "", ANCHORS]
    for part in parts:
        if part.name in stored:
            lines += ["", f"## {part.about}", "", *_part(stored[part.name])]
    return "\n".join(lines) + "\n"


def _part(result: Result) -> Iterator[str]:
    failed = f"**{result.status}**: {result.error}" if result.error else result.status
    yield f"{failed} ({result.seconds:g} s)."
    if notes := [one for one in result.items if isinstance(one, str)]:
        yield from ("", *(f"- {note}" for note in notes))
    if rows := [_cells(one) for one in result.items if isinstance(one, Measure)]:
        yield from ("", report.aligned([["Measure", "Found", "Reference", "Unit", "Goal", "Met"], *rows]))


def _cells(one: Measure) -> list[str]:
    met = {True: "met", False: "**missed**", None: ""}[one.met]
    found, reference = ("" if value is None else f"{value:.4g}" for value in (one.found, one.reference))
    return [one.measure, found, reference, one.unit, one.goal, met]
