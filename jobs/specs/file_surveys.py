"""Surveys of data files, cached while a file does not change.

Results are cached in this process for the last CACHED_FILES files. The key is path, columns, rows, size and
modification time. A change of an image file next to it is not noticed; the trainer reads it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from calibrl_core.data import files
from calibrl_core.data.files import RowProblem, Survey
from calibrl_core.data.image_keys import ImageKeys
from calibrl_core.data.repeats import prompt_key
from calibrl_core.data.report import ReportReader, ReportSettings
from calibrl_core.data.report_facts import ReportWarning
from calibrl_core.data.schema import DataError, Example, FileData, completed
from calibrl_core.data.shards import data_files
from calibrl_core.verifiers.refusals import truth_faults
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput

CACHED_FILES = 256
MOST_CHARACTERS = 200_000  # of the experts of a file that are kept, with their questions and columns
ANSWER_SECONDS = 0.3  # of the CPU, to judge the answers of a file


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a file. `warnings`: of its data report, without rewards. `experts`: row and what a
    reward sees of the first ones but images, MOST_CHARACTERS in all. `prompts`: digests of the prompts. `images`:
    digests of the images, each with the digest of its prompt.
    """

    survey: Survey
    warnings: tuple[ReportWarning, ...]
    experts: tuple[tuple[int, RewardInput], ...]
    prompts: frozenset[bytes]
    images: frozenset[tuple[bytes, bytes]]

    @property
    def expert_texts(self) -> tuple[str, ...]:
        """Return the first experts."""
        return tuple(seen.completion for _, seen in self.experts)


def survey(source: FileData, *, answers: bool) -> Survey:
    """Return the survey of the first rows of a file. `answers`: rows need an answer."""
    return first_rows(source, answers=answers).survey


def first_rows(source: FileData, *, answers: bool) -> FirstRows:
    """Return facts about the first rows of a file. A file is read once while it does not change. `answers`: rows need
    an answer.
    """
    return _first_rows(source, answers, *_fingerprint(source))


def count_rows(source: FileData) -> int | None:
    """Return the number of rows of a file that are used. None: unknown until the trainer reads it.

    Raises:
        DataError: the file cannot be read.
    """
    return _count_rows(source, *_fingerprint(source))


def _fingerprint(source: FileData) -> tuple[int, int]:
    """Return the size of the file, or of all shards of the folder, in bytes, and its newest change in nanoseconds."""
    try:
        found = [file.stat() for file in data_files(Path(source.path))]
    except (DataError, OSError, ValueError):  # the survey reports the error
        return 0, 0
    return sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)


def answer_faults(survey: Survey, rewards: Sequence[Reward]) -> dict[str, str]:
    """Return why no completion can earn an answer of the first rows, by each such answer."""
    answers = (answer for answer, _ in survey.answers)
    return truth_faults(rewards, answers, seconds=ANSWER_SECONDS, with_workers=False)


@lru_cache(CACHED_FILES)
def _first_rows(source: FileData, answers: bool, size: int, changed: int) -> FirstRows:
    reader, experts = ReportReader(ReportSettings(()), ImageKeys(pixels=0)), list[tuple[int, RewardInput]]()
    images, left = set[tuple[bytes, bytes]](), MOST_CHARACTERS

    def watch(item: Example | RowProblem) -> None:
        nonlocal left
        reader.add(item)
        if isinstance(item, Example) and item.images:
            prompt = prompt_key(item, reader.images)
            images.update((picture, prompt) for picture in reader.images)
        if isinstance(item, Example) and item.expert:
            characters = len(item.expert) + len(item.question) + len(str(item.item))
            if characters <= left:
                left -= characters
                (seen,) = completed([replace(item, images=())], [item.expert])
                experts.append((reader.rows, seen))

    found = files.survey(source, watch, answers=answers)
    return FirstRows(found, tuple(reader.warnings()), tuple(experts), reader.prompts, frozenset(images))


@lru_cache(CACHED_FILES)
def _count_rows(source: FileData, size: int, changed: int) -> int | None:
    return files.count_rows(source)
