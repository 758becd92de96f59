"""Output of the suite: the table of faults by states, and the last line."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.chaos.cells import REASONS, State, cells
from tests.chaos.rounds import Hit
from tests.chaos.verify import Found


def print_table(console: Console, faults: Sequence[str], hits: Sequence[Hit]) -> None:
    """Print a line per cell: count, results, seconds to the next claim and to the first new step (median, longest)."""
    table = Table("fault", "job", "times", "what happened", "claimed again, s", "first new step, s", pad_edge=False)
    for fault in faults:
        for state in State:
            mine = [hit for hit in hits if (hit.fault, hit.state) == (fault, state)]
            if mine:
                table.add_row(
                    fault,
                    state,
                    str(len(mine)),
                    _most(hit.happened for hit in mine),
                    _seconds([hit.claimed for hit in mine]),
                    _seconds([hit.stepped for hit in mine]),
                )
    console.print(table)


def print_gaps(console: Console, faults: Sequence[str], hits: Sequence[Hit], without: dict[str, str]) -> list[str]:
    """Print the excluded cells with their reasons, and the missing cells."""
    done = {(hit.fault, hit.state) for hit in hits}
    missing = [f"{fault} x {state}" for fault, state in cells(list(faults)) if (fault, state) not in done]
    senseless = [f"{fault} x {', '.join(states)}: {next(iter(states.values()))}" for fault, states in REASONS.items()]
    for line in senseless:
        console.print(f"makes no sense: {line}", soft_wrap=True)
    for fault, why in without.items():
        console.print(f"not possible on this machine: {fault}: {why}", soft_wrap=True)
    console.print(f"cells not covered: {', '.join(missing) or 'none'}", soft_wrap=True)
    return missing


def last_line(strokes: int, found: Found) -> str:
    """Return `N faults, L jobs lost, D steps doubled, G processes left`."""
    return f"{strokes} faults, {found.lost} jobs lost, {found.doubled} steps doubled, {found.left} processes left"


def _most(words: Iterable[str]) -> str:
    counted = Counter(words)
    return "\n".join(f"{text}{f' ({count})' if len(counted) > 1 else ''}" for text, count in counted.most_common(3))


def _seconds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.1f} ({max(known):.1f})" if known else ""
