"""Which form a file's rows have, known by their columns, so that no setting has to say it.

The required columns of no two forms agree, and a benchmark's form is only looked for where `columns` names nothing:
whoever names columns means the plain form, or of a chat the column with the answer.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from calibrl_core.data import adapters, chat, plain, verl
from calibrl_core.data.cells import Row
from calibrl_core.data.schema import Columns, DataError, Example


@dataclass(frozen=True)
class Form:
    """One form of rows."""

    name: str
    needs: tuple[str, ...]  # the columns by which it is known
    read: Callable[[Row], Example]  # raises DataError


CHAT = Form("OpenAI's chat form", ("messages",), chat.read)
# The first that fits: MathVista has the plain form's columns too; verl's files and chats may carry along any others.
FORMS = (
    Form("verl's form", ("prompt", "reward_model"), verl.read),
    CHAT,
    Form("MathVista's form", ("question", "question_type", "answer"), adapters.mathvista),
    Form("Geometry3K's form", ("problem", "answer"), adapters.geometry3k),
    Form("Inter-GPS's form", ("problem_text", "choices", "answer"), adapters.geometry3k),
    Form("the plain form", (Columns().question, Columns().answer), plain.read),
)


def form_of(found: Collection[str], columns: Columns) -> Form:
    """The form of rows with these columns. Raises DataError, which names the columns, where there is none."""
    if columns != Columns():
        if set(CHAT.needs) <= set(found) and columns == Columns(answer=columns.answer):
            return CHAT
        form = Form("the plain form", (columns.question, columns.answer), plain.read)
        missing = [repr(name) for name in form.needs if name not in found]
        if missing:
            named = " and ".join(missing)
            raise DataError(f"has no column {named}, which `columns` names; it has {_listed(found)}")
        return form
    for form in FORMS:
        if set(form.needs) <= set(found):
            return form
    known = "; ".join(f"{form.name} ({', '.join(form.needs)})" for form in FORMS)
    raise DataError(
        f"has the columns {_listed(found)}, and so no known form: {known}. Say which column holds what: "
        "columns: {question: ..., answer: ...}"
    )


def check_form(form: Form, found: Collection[str]) -> None:
    """Refuse a row that lacks the form's columns: DataError."""
    missing = [name for name in form.needs if name not in found]
    if missing:
        other = next((other for other in FORMS if set(other.needs) <= set(found)), None)
        hint = f": it has {other.name}, the first rows {form.name}; keep them in two files" if other else ""
        raise DataError(f"column {missing[0]!r} is missing{hint}")


def _listed(found: Collection[str]) -> str:
    return ", ".join(sorted(map(repr, found)))
