"""Examples from files and hub data sets. Without torch, so that the API can check a file."""

import os.path
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from calibrl_core.data.cells import Row
from calibrl_core.data.forms import FORMS, Form, check_form, form_of
from calibrl_core.data.prompts import IMAGE_TAG
from calibrl_core.data.readers import BATCH, Raw, image_folder, parsed, read_count, read_rows
from calibrl_core.data.schema import Columns, DataError, Example, FileData, HubData

SHOWN = 20  # problems listed; the rest are counted
# What a submission waits for; the trainer checks the rest.
CHECKED_ROWS = 2_000
CHECKED_IMAGE_BYTES = 100_000_000


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row, counted from 1, or with the whole (None)."""

    source: str
    row: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.row is None else f"{self.source}, row {self.row}: {self.text}"


def load(source: FileData | HubData) -> list[Example]:
    """The source's examples. Raises DataError with every bad row at once."""
    examples: list[Example] = []
    problems: list[str] = []
    for found in examples_of(source):
        if isinstance(found, Example):
            examples.append(found)
        else:
            problems.append(str(found))
    if problems:
        raise DataError(listed(problems))
    if not examples:
        raise DataError(f"{source.label} has no rows")
    return examples


@dataclass(frozen=True)
class Survey:
    """What a file's first rows tell. `whole`: there are no others."""

    rows: int = 0
    whole: bool = True
    with_expert: int = 0
    with_images: int = 0
    problems: tuple[str, ...] = ()


def check_source(source: FileData, *, needs_experts: bool) -> list[str]:
    """Sentences on what keeps this file from being trained on, as far as its first rows tell; empty: nothing does."""
    return what_is_wrong(source, survey(source), needs_experts=needs_experts)


def survey(source: FileData) -> Survey:
    """Look at up to CHECKED_ROWS rows or CHECKED_IMAGE_BYTES of images, no more than a batch of them in memory."""
    path = Path(source.path)
    if path.suffix not in (".jsonl", ".parquet"):
        return Survey(problems=(f"{source.path} is neither .jsonl nor .parquet; convert it to one of them",))
    if not os.path.isfile(path):  # noqa: PTH113 - False, too, where the name is too long or its folder is closed to us
        missing = "does not exist on this machine; give the absolute path of a file that workers can read"
        return Survey(problems=(f"{source.path} {missing}",))
    problems: list[str] = []
    rows = image_bytes = experts = with_images = 0
    for found in examples_of(source):
        if rows >= CHECKED_ROWS or image_bytes >= CHECKED_IMAGE_BYTES:
            return Survey(rows, False, experts, with_images, tuple(problems))
        rows += 1
        if isinstance(found, Example):
            image_bytes += sum(map(len, found.images))
            experts += bool(found.expert)
            with_images += bool(found.images)
        else:
            problems.append(str(found))
    return Survey(rows, True, experts, with_images, tuple(problems))


def what_is_wrong(source: FileData, found: Survey, *, needs_experts: bool) -> list[str]:
    """Sentences on what keeps a file from being trained on, from a look at it."""
    if found.problems:
        return [listed(found.problems)]
    if not found.rows:
        return [f"{source.label} has no rows"]
    if needs_experts and found.whole and not found.with_expert:  # else a later row may have one
        return [
            f"no row of {source.label} has an expert in column {source.columns.expert!r} (in verl's form: `solution`, "
            "with a pass_ratio above 0; in a chat: a last message of the assistant's), and this algorithm needs "
            "experts; add them, name their column in data.columns.expert, or choose {type: grpo}"
        ]
    return []


def count_rows(source: FileData) -> int:
    """How many rows of a file are used. Raises DataError where it can't be read."""
    rows = read_count(source.path)
    return rows if source.rows is None else min(rows, source.rows)


def form_problem(found: Collection[str], columns: Columns) -> str | None:
    """Why rows with the columns `found` have no form where these columns are named; None: they have one."""
    try:
        form_of(found, columns)
    except DataError as problem:
        return str(problem)
    return None


def listed(problems: Sequence[str]) -> str:
    """The first SHOWN problems in one line, and how many more there are."""
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def examples_of(
    source: FileData | HubData, seen: set[str] | None = None, *, answers_later: bool = False
) -> Iterator[Example | Fault]:
    """Each row's example or what is wrong with it; and what is wrong with the whole. `seen` gets the columns' names.

    `answers_later`: a chat may lack its answer, since who uses it will name the column.
    """
    rows, seen = read_rows(source), set() if seen is None else seen
    try:
        head = list(islice(rows, BATCH))
        form = _form(source, head)
        folder = image_folder(source)
        for number, raw in enumerate(islice(chain(head, rows), source.rows), start=1):
            try:
                row = Row(f"{source.name}/{number}", parsed(raw), source.columns, folder)
                seen.update(row.values)
                yield _example(form, row, answers_later)
            except DataError as problem:
                yield Fault(source.label, number, str(problem))
        if seen:
            yield from (Fault(source.label, None, text) for text in _unseen(source, seen))
    except DataError as problem:
        yield Fault(source.label, None, str(problem))


def _form(source: FileData | HubData, head: list[Raw]) -> Form:
    """The form that the first rows have; a wrong name is reported once, not once a row."""
    columns = dict.fromkeys(name for raw in head for name in _columns(raw))
    if not columns:
        return FORMS[-1]  # none of these lines is a row, and each is reported as such
    try:
        return form_of(columns, source.columns)
    except DataError as problem:
        raise DataError(f"{source.label} {problem}") from problem


def _columns(raw: Raw) -> list[str]:
    with suppress(DataError):  # reported with its row
        return list(parsed(raw))
    return []


def _unseen(source: FileData | HubData, seen: set[str]) -> Iterator[str]:
    """Columns that may be empty in any row, but not be absent from all when they were named."""
    for field in ("images", "expert"):
        name = getattr(source.columns, field)
        if name != getattr(Columns(), field) and name not in seen:
            has = ", ".join(map(repr, sorted(seen)))
            yield f"{source.label} has no column {name!r}, which columns.{field} names; it has {has}"


def _example(form: Form, row: Row, answers_later: bool) -> Example:
    check_form(form, row.values)
    example = form.read(row)
    if not example.answer and not answers_later:
        raise DataError(
            "has no answer: end 'messages' with the assistant's, or name the column that holds it: "
            "columns: {answer: ...}"
        )
    texts = [turn.text for turn in example.earlier] + [example.question]
    tags = sum(len(IMAGE_TAG.findall(text)) for text in texts)
    if tags > len(example.images):
        raise DataError(f"the prompt has {tags} <image> tags, and the row {len(example.images)} images")
    return example
