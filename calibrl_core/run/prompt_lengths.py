"""Prompts with too many tokens or images: refuse, drop or truncate them, by `config.PromptSettings`.

The caller provides the length of a prompt, with images and chat template: this module has no tokenizer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibrl_core.config import PromptSettings, TrainConfig
from calibrl_core.data.files import join_problems
from calibrl_core.data.prompts import IMAGE_TAG
from calibrl_core.data.schema import DataError, Example
from calibrl_core.data.views import ExampleView, Selected, repeats_of

Length = Callable[[Example], int]  # number of tokens of an example's prompt


def completion_limit(config: TrainConfig, field: str) -> tuple[int, str]:
    """Return the maximum tokens of completions of the prompts in `field`, and the setting that has it."""
    name = "max_completion_tokens"
    if field == "data":
        return config.rollout.max_completion_tokens, f"rollout.{name}"
    own = config.validation is not None and config.validation.max_completion_tokens is not None
    return config.validation_rollout.max_completion_tokens, f"{'validation' if own else 'rollout'}.{name}"


@dataclass(frozen=True)
class LengthReport:
    """Number of prompts that were too long."""

    dropped: int = 0
    truncated: int = 0
    dropped_for_images: int = 0


class _Truncated(ExampleView):
    """Examples of which some have only the first characters of their question."""

    def __init__(self, examples: Sequence[Example], characters: Mapping[int, int]) -> None:
        """characters: the number that is kept, by the place of the example."""
        self._examples, self._characters = examples, characters

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def repeats(self) -> NDArray[np.int64]:
        return repeats_of(self._examples)

    def _one(self, place: int) -> Example:
        example = self._examples[place]
        return _with_characters(example, self._characters[place]) if place in self._characters else example


def fit_prompts(
    examples: Sequence[Example], settings: PromptSettings, length: Length
) -> tuple[Sequence[Example], LengthReport]:
    """Return the examples whose prompts fit, in order, and how many were dropped or truncated.

    Counts every prompt once, and a prompt that is truncated about ten times more.

    Raises:
        DataError: with rows and numbers, if a prompt has too many tokens or images and `too_long` is not `drop`, if
            truncation cannot make it fit, or if no prompt is left.
    """
    few = _with_few_images(examples, settings)
    fitting, report = _with_few_tokens(few, settings, length)
    return fitting, replace(report, dropped_for_images=len(examples) - len(few))


def _with_few_images(examples: Sequence[Example], settings: PromptSettings) -> Sequence[Example]:
    limit = settings.max_images
    if limit is None:
        return examples
    places: list[int] = []
    problems: list[str] = []
    for place, one in enumerate(examples):
        if len(one.images) <= limit:
            places.append(place)
        elif settings.too_long != "drop":
            problems.append(f"{one.id} has {len(one.images)}")
    if problems:
        hint = "raise prompts.max_images, remove images, or choose prompts.too_long: drop"
        raise DataError(f"prompts of more than {limit} images: {join_problems(problems)}; {hint}")
    if examples and not places:
        raise DataError(f"every prompt has more than {limit} images, so all were dropped: raise prompts.max_images")
    return Selected(examples, places)


def _with_few_tokens(
    examples: Sequence[Example], settings: PromptSettings, length: Length
) -> tuple[Sequence[Example], LengthReport]:
    limit = settings.max_tokens
    if limit is None:
        return examples, LengthReport()
    places: list[int] = []
    characters: dict[int, int] = {}  # of truncated questions
    problems: list[str] = []
    dropped = 0
    for place, example in enumerate(examples):
        tokens = length(example)
        if tokens <= limit:
            places.append(place)
        elif settings.too_long == "drop":
            dropped += 1
        elif settings.too_long == "error":
            problems.append(f"{example.id} has {tokens}")
        elif (kept := _fitting_characters(example, limit, length)) is None:
            problems.append(f"{example.id} has {tokens}, and exceeds the limit even without its question's text")
        else:
            places.append(place)
            characters[place] = kept
    if problems:
        hint = "raise prompts.max_tokens, shorten these, or choose prompts.too_long: drop"
        raise DataError(f"prompts of more than {limit} tokens: {join_problems(problems)}; {hint}")
    if examples and not places:
        raise DataError(f"every prompt has more than {limit} tokens, so all were dropped: raise prompts.max_tokens")
    return Selected(_Truncated(examples, characters), places), LengthReport(dropped, len(characters))


def _fitting_characters(example: Example, limit: int, length: Length) -> int | None:
    """Return the number of characters of the longest prefix of its question that fits, or None if no prefix does.

    Image tags, earlier turns and the text that the prompt adds at its end are kept.
    """
    tags = list(IMAGE_TAG.finditer(example.question))
    characters = len(example.question) - sum(len(tag.group()) for tag in tags)
    best, low, high = None, 0, characters - 1  # the whole text does not fit: at least one character must go
    while low <= high:
        kept = (low + high) // 2
        if length(_with_characters(example, kept)) <= limit:
            best, low = kept, kept + 1
        else:
            high = kept - 1
    return best


def _with_characters(example: Example, characters: int) -> Example:
    return replace(example, question=_cut(example.question, characters))


def _cut(question: str, characters: int) -> str:
    """Return the question with only its first `characters` characters of text, and every image tag."""
    pieces: list[str] = []
    start = 0
    for tag in IMAGE_TAG.finditer(question):
        pieces += [question[start : tag.start()][:characters], tag.group()]
        characters -= len(pieces[-2])
        start = tag.end()
    return "".join([*pieces, question[start:][:characters]])
