"""Examples from files and hub datasets. Without torch, so that the API can check a file."""

import os.path
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from calibrl_core.data.formats import FORMATS
from calibrl_core.data.formats.base import RowFormat
from calibrl_core.data.image_tags import place_images
from calibrl_core.data.other_media import refuse_media_columns, refuse_media_tags
from calibrl_core.data.readers import BATCH, BATCH_BYTES, RawRow, image_folder, parse_row, read_count, read_rows
from calibrl_core.data.row import Row, has_content
from calibrl_core.data.row_formats import check_format, detect_format, wrapped_rows
from calibrl_core.data.row_items import row_item
from calibrl_core.data.schema import AUTO, Columns, DataError, Example, FileData, HubData
from calibrl_core.data.shards import kind_of
from calibrl_core.data.source_facts import SourceFacts
from calibrl_core.data.text_faults import check_texts

SHOWN = 20  # problems in a message; the rest are counted
# Limits of the check at submission; the trainer checks the rest.
CHECKED_ROWS = 2_000
CHECKED_IMAGE_BYTES = 100_000_000
CHECKED_SECONDS = 1.5  # of the CPU
LONGEST_ANSWER = 1_000  # characters of an answer that is kept for checks
LONGEST_PROBLEM = 2_000  # characters of a message; a row can have columns without number
NO_RATIO = "no pass_ratio: fill this column, or choose another curriculum"
RowsWithRatio = Literal["none", "all", "experts"]  # rows that need a pass ratio


@dataclass(frozen=True)
class RowProblem:
    """A problem of a row (counted from 1), or of the whole source (row None)."""

    source: str
    row: int | None
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= LONGEST_PROBLEM else f"{self.text[:LONGEST_PROBLEM]} ..."
        return text if self.row is None else f"{self.source}, row {self.row}: {text}"


def load(source: FileData | HubData, facts: SourceFacts | None = None, *, answers: bool = True) -> list[Example]:
    """Return all examples of a source, in memory. Arguments and errors: as of `valid_examples`."""
    return [example for example in valid_examples(source, facts, answers=answers) if example is not None]


def valid_examples(
    source: FileData | HubData, facts: SourceFacts | None = None, *, answers: bool = True
) -> Iterator[Example | None]:
    """Yield the example of each row; None for each row from the first invalid one on, and then raise.

    Args:
        facts: receives the format and the columns.
        answers: rows need an answer.

    Raises:
        DataError: rows are invalid; the message names the first of them and counts the others. Or there is no row.
    """
    problems: list[str] = []
    count = rows = 0
    for item in read_examples(source, facts, answers=answers):
        rows += 1
        if isinstance(item, RowProblem):
            count += 1
            problems += [str(item)] if count <= SHOWN else []
        yield item if isinstance(item, Example) and not count else None
    if problems:
        raise DataError(join_problems(problems, count))
    if not rows:
        raise DataError(f"{source.label} has no rows")


@dataclass(frozen=True)
class Survey:
    """Counts and problems of a file's first rows. `complete`: the file has no other rows. `row_format`: its title.
    `answers`: different ones, each with its rows, without very long ones.
    """

    rows: int = 0
    complete: bool = True
    with_expert: int = 0
    with_images: int = 0
    without_pass_ratio: int = 0
    experts_without_pass_ratio: int = 0
    problems: tuple[str, ...] = ()
    row_format: str | None = None
    unused_columns: tuple[str, ...] = ()
    answers: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def lacking(self, ratios: RowsWithRatio) -> int:
        """Return how many rows lack the pass ratio that they need."""
        lacking = {"none": 0, "all": self.without_pass_ratio, "experts": self.experts_without_pass_ratio}
        return lacking[ratios]


def check_source(source: FileData, *, needs_experts: bool) -> list[str]:
    """Return the problems in a file's first rows that prevent training, as sentences."""
    return survey_problems(source, survey(source), needs_experts=needs_experts)


def survey(
    source: FileData, watch: Callable[[Example | RowProblem], None] | None = None, *, answers: bool = True
) -> Survey:
    """Read up to CHECKED_ROWS rows, CHECKED_IMAGE_BYTES of images or CHECKED_SECONDS, with at most one batch of rows in
    memory. `watch`: receives each of these rows; its time counts too. `answers`: rows need an answer.
    """
    if refused := _path_problem(source):
        return Survey(problems=(refused,))
    problems: list[str] = []
    facts = SourceFacts()
    rows = image_bytes = experts = with_images = without_ratio = experts_without = 0
    rows_of = defaultdict[str, list[int]](list)  # by answer
    complete, started = True, time.thread_time()
    for item in read_examples(source, facts, answers=answers):
        used = time.thread_time() - started
        if rows >= CHECKED_ROWS or image_bytes >= CHECKED_IMAGE_BYTES or (rows and used > CHECKED_SECONDS):
            complete = False
            break
        rows += 1
        if watch is not None:
            watch(item)
        if isinstance(item, Example):
            image_bytes += sum(map(len, item.images))
            experts += bool(item.expert)
            with_images += bool(item.images)
            without_ratio += item.pass_ratio is None
            experts_without += item.pass_ratio is None and bool(item.expert)
            if len(item.answer) <= LONGEST_ANSWER:
                rows_of[item.answer].append(rows)
        else:
            problems.append(str(item))
    title = facts.form.title if facts.form else None
    return Survey(
        rows,
        complete,
        experts,
        with_images,
        without_ratio,
        experts_without,
        tuple(problems),
        title,
        facts.unused,
        tuple((answer, tuple(places)) for answer, places in rows_of.items()),
    )


def _path_problem(source: FileData) -> str | None:
    path = Path(source.path)
    is_folder = os.path.isdir(path)  # noqa: PTH112 - as below
    if not is_folder and kind_of(path) is None:
        kinds = "neither JSON (.jsonl, .json, also with .gz or .zst) nor .parquet"
        return f"{source.path} is {kinds}: convert it to one of them"
    # Also False if the name is too long or its folder is not readable.
    if not is_folder and not os.path.isfile(path):  # noqa: PTH113
        missing = "does not exist on this machine; give the absolute path of a file that workers can read"
        return f"{source.path} {missing}"
    return None


def survey_problems(
    source: FileData, survey: Survey, *, needs_experts: bool, ratios: RowsWithRatio = "none", drops: bool = False
) -> list[str]:
    """Return the problems in a survey that prevent training, as sentences.

    Args:
        ratios: rows that need a pass ratio.
        drops: the trainer can drop rows.
    """
    if survey.problems:
        return [join_problems(survey.problems)]
    if not survey.rows:
        return [f"{source.label} has no rows"]
    if needs_experts and survey.complete and not survey.with_expert:  # if not complete, a later row can have one
        return [
            f"no row of {source.label} has an expert in column {source.columns.expert!r} (in verl's format: "
            "`solution`, with a pass_ratio above 0, or `target`; in a chat: a last message of the assistant), and this "
            "job needs experts: add them, or name their column in data.columns.expert; {type: grpo} trains without them"
        ]
    lacking, needed = survey.lacking(ratios), survey.with_expert if ratios == "experts" else survey.rows
    if lacking and (not drops or (survey.complete and lacking == needed)):
        return [f"{lacking} of the {survey.rows} checked rows of {source.label} have {NO_RATIO}"]
    return []


def count_rows(source: FileData) -> int | None:
    """Return how many rows of a file are used. None: a large file whose rows only reading it would count.

    Raises:
        DataError: the file cannot be read.
    """
    rows = read_count(source.path)
    return rows if source.rows is None or rows is None else min(rows, source.rows)


def format_problem(names: Collection[str], columns: Columns, chosen: str = AUTO) -> str | None:
    """Return why rows with the columns `names` have no known format, given the named columns and the chosen format, or
    None if they have one.
    """
    try:
        detect_format(names, columns, chosen)
    except DataError as problem:
        return str(problem)
    return None


def join_problems(problems: Sequence[str], count: int | None = None) -> str:
    """Return the first SHOWN problems in one line, and the number of the others. count: all that were found, if
    `problems` has only some.
    """
    others = (count or len(problems)) - SHOWN
    return "; ".join(problems[:SHOWN]) + (f" (and {others} more)" if others > 0 else "")


def read_examples(
    source: FileData | HubData, facts: SourceFacts | None = None, *, answers: bool = True
) -> Iterator[Example | RowProblem]:
    """Yield each row's example or its problem, and problems of the whole source.

    Args:
        facts: receives the format and the columns.
        answers: rows need an answer. False: no reward reads it, or the user of the dataset will name its column.
    """
    rows, facts = read_rows(source), facts or SourceFacts()
    try:
        head = _head(rows)
        form = facts.form = source_format(source, head, answers=answers)
        folder = image_folder(source)
        for number, values in enumerate(islice(chain(head, map(parsed_row, rows)), source.rows), start=1):
            try:
                if isinstance(values, DataError):
                    raise values
                row = Row(f"{source.name}/{number}", values, source.columns, folder, facts.used)
                facts.columns.update(row.values)
                facts.filled.update(name for name, value in row.values.items() if has_content(value))
                yield _example(form, row, answers)
            except DataError as problem:
                yield RowProblem(source.label, number, str(problem))
        if facts.columns:
            yield from (RowProblem(source.label, None, text) for text in _unseen(source, facts.columns))
    except DataError as problem:
        yield RowProblem(source.label, None, str(problem))


def _head(rows: Iterator[RawRow]) -> list[dict[str, Any] | DataError]:
    """Return the first rows, which tell the format: BATCH rows, or fewer large ones."""
    head: list[dict[str, Any] | DataError] = []
    size = 0
    for raw in islice(rows, BATCH):
        head.append(parsed_row(raw))
        size += len(raw) if isinstance(raw, bytes) else 0
        if size >= BATCH_BYTES:
            break
    return head


def parsed_row(raw: RawRow) -> dict[str, Any] | DataError:
    """Return the columns of a row, or why it has none."""
    try:
        return parse_row(raw)
    except DataError as problem:  # reported with the row
        return problem


def source_format(
    source: FileData | HubData, head: Sequence[dict[str, Any] | DataError], *, answers: bool
) -> RowFormat:
    """Return the format of the first rows. A wrong column name is reported once, not once per row.

    Raises:
        DataError: the rows have no known format.
    """
    rows = [row for row in head if not isinstance(row, DataError)]
    if head and not rows:
        raise DataError(f"{source.label} is not a file of JSON rows: {head[0]}; write one object per line")
    columns = dict.fromkeys(name for row in rows for name in row)
    if not columns:
        return FORMATS[-1]  # no rows, or empty ones; each is reported
    try:
        return detect_format(columns, source.columns, source.format, rows, answers=answers)
    except DataError as problem:
        raise DataError(f"{source.label} {wrapped_rows(rows) or problem}") from problem


def _unseen(source: FileData | HubData, column_names: set[str]) -> Iterator[str]:
    """Yield problems of columns that are named but absent from all rows. Their cells may be empty in any row."""
    for role in ("images", "expert"):
        name = getattr(source.columns, role)
        if name != getattr(Columns(), role) and name not in column_names:
            has = ", ".join(map(repr, sorted(column_names)))
            yield f"{source.label} has no column {name!r}, which columns.{role} names; it has {has}"


def _example(form: RowFormat, row: Row, answers: bool) -> Example:
    check_format(form, row.values, row.columns, answers=answers)
    refuse_media_columns(row.values)
    example = form.read(row)
    if answers and not example.answer:
        raise DataError(form.without_answer(row.values, row.columns))
    texts, images = place_images([*(turn.text for turn in example.earlier), example.question], example.images)
    earlier = tuple(replace(turn, text=text) for turn, text in zip(example.earlier, texts, strict=False))
    refuse_media_tags(texts)
    example = replace(example, earlier=earlier, question=texts[-1], images=images, item=row_item(row.values))
    check_texts(example)
    return example
