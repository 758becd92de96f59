"""Prompts with too many tokens or images: refuse, drop or truncate them, by `config.PromptSettings`.

The caller provides the length of a prompt, with images and chat template: this module has no tokenizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from calibrl_core.config import PromptSettings
from calibrl_core.data.files import join_problems
from calibrl_core.data.prompts import IMAGE_TAG
from calibrl_core.data.schema import DataError, Example

Length = Callable[[Example], int]  # number of tokens of an example's prompt


@dataclass(frozen=True)
class LengthReport:
    """Number of prompts that were too long."""

    dropped: int = 0
    truncated: int = 0
    dropped_for_images: int = 0


def fit_prompts(
    examples: Sequence[Example], settings: PromptSettings, length: Length
) -> tuple[list[Example], LengthReport]:
    """Return the examples whose prompts fit, in order, and how many were dropped or truncated.

    Counts every prompt once, and a prompt that is truncated about ten times more.

    Raises:
        DataError: with rows and numbers, if a prompt has too many tokens or images and `too_long` is not `drop`, if
            truncation cannot make it fit, or if no prompt is left.
    """
    few = _with_few_images(examples, settings)
    fitting, report = _with_few_tokens(few, settings, length)
    return fitting, replace(report, dropped_for_images=len(examples) - len(few))


def _with_few_images(examples: Sequence[Example], settings: PromptSettings) -> list[Example]:
    limit = settings.max_images
    if limit is None:
        return list(examples)
    if settings.too_long != "drop":
        problems = [f"{one.id} has {len(one.images)}" for one in examples if len(one.images) > limit]
        if problems:
            hint = "raise prompts.max_images, remove images, or choose prompts.too_long: drop"
            raise DataError(f"prompts of more than {limit} images: {join_problems(problems)}; {hint}")
    few = [one for one in examples if len(one.images) <= limit]
    if examples and not few:
        raise DataError(f"every prompt has more than {limit} images, so all were dropped: raise prompts.max_images")
    return few


def _with_few_tokens(
    examples: list[Example], settings: PromptSettings, length: Length
) -> tuple[list[Example], LengthReport]:
    limit = settings.max_tokens
    if limit is None:
        return examples, LengthReport()
    fitting: list[Example] = []
    problems: list[str] = []
    dropped = truncated = 0
    for example in examples:
        tokens = length(example)
        if tokens <= limit:
            fitting.append(example)
        elif settings.too_long == "drop":
            dropped += 1
        elif settings.too_long == "error":
            problems.append(f"{example.id} has {tokens}")
        elif (cut := _truncated(example, limit, length)) is None:
            problems.append(f"{example.id} has {tokens}, and exceeds the limit even without its question's text")
        else:
            fitting.append(cut)
            truncated += 1
    if problems:
        hint = "raise prompts.max_tokens, shorten these, or choose prompts.too_long: drop"
        raise DataError(f"prompts of more than {limit} tokens: {join_problems(problems)}; {hint}")
    if examples and not fitting:
        raise DataError(f"every prompt has more than {limit} tokens, so all were dropped: raise prompts.max_tokens")
    return fitting, LengthReport(dropped, truncated)


def _truncated(example: Example, limit: int, length: Length) -> Example | None:
    """Return the example with the longest prefix of its question that fits, or None if no prefix does.

    Image tags, earlier turns and the text that the prompt adds at its end are kept.
    """
    tags = list(IMAGE_TAG.finditer(example.question))
    characters = len(example.question) - sum(len(tag.group()) for tag in tags)
    best, low, high = None, 0, characters - 1  # the whole text does not fit: at least one character must go
    while low <= high:
        kept = (low + high) // 2
        cut = replace(example, question=_cut(example.question, kept))
        if length(cut) <= limit:
            best, low = cut, kept + 1
        else:
            high = kept - 1
    return best


def _cut(question: str, characters: int) -> str:
    """Return the question with only its first `characters` characters of text, and every image tag."""
    pieces: list[str] = []
    start = 0
    for tag in IMAGE_TAG.finditer(question):
        pieces += [question[start : tag.start()][:characters], tag.group()]
        characters -= len(pieces[-2])
        start = tag.end()
    return "".join([*pieces, question[start:][:characters]])
