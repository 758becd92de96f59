"""Check of chat templates against the messages of the data, before any work is done."""

from collections.abc import Callable, Sequence

from calibrl_core.data.files import RowProblem, join_problems
from calibrl_core.data.schema import BuiltinData, DataError, DataSource, Example


def check_template(
    field: str, source: DataSource, examples: Sequence[Example], refusal: Callable[[Example], str | None]
) -> None:
    """Check all rows of a source. `refusal`: why the chat template refuses an example, or None.

    Raises:
        DataError: the template refuses some rows; the message names each reason once, with its first row.
    """
    label = source.name if isinstance(source, BuiltinData) else source.label
    rows: dict[str, list[int]] = {}
    for number, example in enumerate(examples, start=1):
        if reason := refusal(example):
            rows.setdefault(reason, []).append(number)
    if rows:
        problems = [str(RowProblem(label, first, _counted(reason, more))) for reason, (first, *more) in rows.items()]
        raise DataError(
            f"{field}: {join_problems(problems)}; change the messages of these rows (or prompts.system), or set "
            "prompts.chat_template"
        )


def _counted(reason: str, more: Sequence[int]) -> str:
    return f"{reason}, as in {len(more)} more rows" if more else reason
