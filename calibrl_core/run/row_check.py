"""Check of all rows against the model's chat template and processor, before any work is done."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from calibrl_core.data.files import SHOWN, RowProblem, join_problems
from calibrl_core.data.schema import BuiltinData, DataError, DataSource, Example

Found = TypeVar("Found")


def all_results(*calls: Callable[[], Found]) -> list[Found]:
    """Return the results of all calls, so that one run names the faults of all.

    Raises:
        DataError: of each call that raises one, on a line of its own.
    """
    found, faults = list[Found](), list[str]()
    for call in calls:
        try:
            found.append(call())
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return found


def check_rows(
    field: str, source: DataSource, examples: Sequence[Example], fault: Callable[[Example], str | None]
) -> None:
    """Check all rows of a source. `fault`: why the model cannot take an example, or None.

    Raises:
        DataError: some rows have a fault; the message names each fault once, with its rows.
    """
    label = source.name if isinstance(source, BuiltinData) else source.label
    rows: dict[str, list[int]] = {}
    for number, example in enumerate(examples, start=1):
        if reason := fault(example):
            rows.setdefault(reason, []).append(number)
    if rows:
        problems = [str(RowProblem(label, first, _counted(reason, more))) for reason, (first, *more) in rows.items()]
        raise DataError(f"{field}: {join_problems(problems)}")


def _counted(reason: str, more: Sequence[int]) -> str:
    """Return the reason with the other rows that have it."""
    if not more:
        return reason
    listed = ", ".join(map(str, more[:SHOWN])) + (" ..." if len(more) > SHOWN else "")
    return f"{reason}, as in {len(more)} more rows ({listed})"
