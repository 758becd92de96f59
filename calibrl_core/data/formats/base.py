"""Base of all row formats: the columns that identify one, and the function that reads its rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from calibrl_core.data.conversations import Conversation, with_reasoning
from calibrl_core.data.options import list_options, right_letter, row_options, with_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import pass_ratio
from calibrl_core.data.schema import ColumnRole, Columns, Example
from calibrl_core.data.truths import stated_answer, truth

NO_ANSWER = (  # of a chat
    "has no answer: end 'messages' with the assistant's answer, or name the column that holds it: "
    "columns: {answer: ...}"
)
ANSWER_COLUMNS = ("answer", "reference_answer", "ground_truth", "solution")  # of formats with conversations


class Rank(IntEnum):
    """Order of detection. The schemas of trainers can hold columns of any other format."""

    TRAINER = 0
    BENCHMARK = 1
    GENERAL = 2


@dataclass(frozen=True)
class Need:
    """A column that every row has: one of `names`, or the one that the user names for the role."""

    names: tuple[str, ...]
    role: ColumnRole | None = None

    def named(self, columns: Columns) -> tuple[str, ...]:
        """Return the possible columns under the names of the user."""
        own = columns.named(self.role) if self.role else None
        return (own,) if own else self.names

    def met(self, names: Collection[str], columns: Columns) -> bool:
        """Return if rows with the columns `names` meet the need."""
        return any(name in names for name in self.named(columns))


@dataclass(frozen=True)
class RowFormat:
    """One format of rows, or one of its variants with the same name."""

    name: str  # value of `data.format`
    title: str  # in messages
    read: Callable[[Row], Example]  # raises DataError
    needs: tuple[Need, ...]
    rank: Rank
    marks: tuple[tuple[str, ...], ...] = ()  # one column of each identifies the format too; later rows can lack it
    fits: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None  # what its first rows must hold
    no_answer: str | None = None  # message for a row without an answer, if no column of `needs` has it

    def detected(
        self,
        names: Collection[str],
        columns: Columns,
        rows: Sequence[Mapping[str, Any]] = (),
        *,
        answers: bool = True,
    ) -> bool:
        """Return if the columns of the first rows, and what they hold, identify the format. `answers`: as of
        `missing`.
        """
        asked = (need.names for need in self.needs if need.role == "question" and self.rank != Rank.GENERAL)
        marked = all(any(name in names for name in mark) for mark in (*asked, *self.marks))
        missing = self.missing(names, columns, answers=answers)
        return marked and not missing and (self.fits is None or self.fits(rows))

    def missing(self, names: Collection[str], columns: Columns, *, answers: bool = True) -> list[str]:
        """Return the needed columns that are not among `names`. `answers`: the column of the answer is needed."""
        needs = (need for need in self.needs if answers or need.role != "answer")
        return [need.named(columns)[0] for need in needs if not need.met(names, columns)]

    def has_answers(self, names: Collection[str], columns: Columns) -> bool:
        """Return if rows with the columns `names` have a column of the answer."""
        if columns.named("answer"):
            return True
        return any(need.role == "answer" and need.met(names, columns) for need in self.needs)

    def without_answer(self, names: Collection[str], columns: Columns) -> str:
        """Return why a row with the columns `names` and without an answer is refused."""
        named = columns.named("answer")
        if named is None and self.no_answer:
            return self.no_answer
        known = (named,) if named else next((need.names for need in self.needs if need.role == "answer"), ("answer",))
        column = next((name for name in known if name in names), known[0])
        return f"column {column!r} must hold the answer, as text or a number: a reward compares with it"


def question(*names: str) -> Need:
    """Return the need of a column with the question."""
    return Need(names, "question")


def answer(*names: str) -> Need:
    """Return the need of a column with the answer."""
    return Need(names, "answer")


def make_example(row: Row, **fields: Any) -> Example:
    """Return an example with these fields. The ID, `pass_ratio` and `data_source` come from the row if not given."""
    source = row.text("data_source") or None
    ratio = pass_ratio(row.cell("pass_ratio").value)
    return Example(**{"id": row.id, "data_source": source, "pass_ratio": ratio, **fields})


def conversation_example(row: Row, found: Conversation) -> Example:
    """Return the example of a conversation. Its answer is in one of ANSWER_COLUMNS, or stated by the expert, or the
    expert itself; empty without all of them. Options of the row are added to the question, and only an answer in a
    column becomes a letter: that of an expert stays as the expert writes it.
    """
    expert = found.expert
    cell = row.cell(*ANSWER_COLUMNS, role="answer")
    given = truth(cell)
    if cell.column == "solution":
        given = stated_answer(given) or given
    stated = stated_answer(expert) if expert else None
    asked, options = found.question, row_options(row, given or stated)
    if options and given:
        given = right_letter(cell._replace(value=given), options)
        asked = with_options(asked, options, given)
    elif options:
        asked = list_options(asked, options)
    return make_example(
        row,
        question=asked,
        answer=given or ("" if row.columns.named("answer") else stated or (expert or "").strip()),
        images=found.images,
        expert=with_reasoning(row, expert, given),
        earlier=found.earlier,
        asks_for_answer=bool(given) or not expert or stated is not None,
    )
