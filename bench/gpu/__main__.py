"""Check of the trainer on a GPU: correctness, then speed and memory on the shapes of Qwen2.5-VL, in 12 minutes.

    python -m bench.gpu
    python -m bench.gpu --part kernels --again
    python -m bench.gpu --device cpu --small      # rehearsal; its figures mean nothing

Each part runs in its own process within a time limit, and is stored at its end. A later run continues with the parts
that are missing, failed or were cut. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench import report
from bench.gpu import cards, results
from bench.gpu.findings import CheckPart, Item, Setup
from bench.gpu.parts import PARTS
from bench.gpu.runner import Result, run_part

REHEARSAL = Path("build")  # folder of the results of a rehearsal


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument("--small", action="store_true", help="rehearse with tiny shapes; results go to build/")
    parser.add_argument(
        "--part", choices=[part.name for part in PARTS], action="append", help="repeat for several; default: all"
    )
    parser.add_argument("--again", action="store_true", help="also run parts that are done")
    parser.add_argument("--results", type=Path, help="folder of the results; default: bench/results")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; rehearse with --device cpu --small")
    folder = options.results or (REHEARSAL if options.small else report.RESULTS)
    chosen = [part for part in PARTS if not options.part or part.name in options.part]
    sys.exit(check(Setup(options.device, options.small), chosen, folder, again=options.again))


def check(setup: Setup, parts: Sequence[CheckPart], folder: Path, *, again: bool) -> int:
    """Run parts, write their results, and print the table of all results; return the exit status."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    circumstances = report.circumstances(("torch", "transformers"))
    console.print(circumstances)
    name = results.file_name(cards.name(setup.device), small=setup.small)
    path = folder / f"{name}.json"
    stored = results.load(path)
    for part in results.open_parts(parts, stored, again=again):
        console.print(f"\n{part.about} ({part.name}, at most {part.limit:g} s)")
        stored[part.name] = run_part(part, setup, lambda item: console.print(f"  {shown(item)}"))
        results.save(path, circumstances, stored)
        console.print(f"  {ending(stored[part.name])}")
    page = results.markdown(circumstances, PARTS, stored)
    path.with_suffix(".md").write_text(page)
    console.print(f"\n{page}\n{path}")
    return int(any(stored[part.name].status != "done" for part in parts))


def shown(item: Item) -> str:
    """Return an item as a line."""
    if isinstance(item, str):
        return item
    goal = "" if item.met is None else f" ({item.goal}: {'met' if item.met else 'MISSED'})"
    found = "not measured" if item.found is None else f"{item.found:.4g} {item.unit}".rstrip()
    return f"{item.measure}: {found}{goal}"


def ending(result: Result) -> str:
    """Return the end of a part as a line."""
    return f"{result.status} after {result.seconds:g} s" + (f": {result.error}" if result.error else "")


if __name__ == "__main__":
    main()
