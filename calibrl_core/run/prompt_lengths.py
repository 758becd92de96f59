"""What becomes of prompts that are too long: refuse, drop or truncate, by `config.PromptSettings`.

The length is whatever the caller counts, with images and chat template: this module knows no tokenizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from calibrl_core.config import PromptSettings
from calibrl_core.data.files import listed
from calibrl_core.data.prompts import IMAGE_TAG
from calibrl_core.data.schema import DataError, Example

Length = Callable[[Example], int]  # tokens of an example's prompt


@dataclass(frozen=True)
class LengthReport:
    """How many prompts were too long."""

    dropped: int = 0
    truncated: int = 0


def fit_prompts(
    examples: Sequence[Example], settings: PromptSettings, length: Length
) -> tuple[list[Example], LengthReport]:
    """The examples whose prompts fit, in order, and how many were dropped or cut for it.

    Counts every prompt once, and one that is cut some ten times more. Raises DataError, with rows and lengths, where
    a prompt is too long and must not be (`too_long: error`), where no cutting makes it fit, or where none is left.
    """
    limit = settings.max_tokens
    if limit is None:
        return list(examples), LengthReport()
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
            problems.append(f"{example.id} has {tokens}, and too many even without its question's text")
        else:
            fitting.append(cut)
            truncated += 1
    if problems:
        hint = "raise prompts.max_tokens, shorten these, or choose prompts.too_long: drop"
        raise DataError(f"prompts of more than {limit} tokens: {listed(problems)}; {hint}")
    if examples and not fitting:
        raise DataError(f"every prompt has more than {limit} tokens (prompts.max_tokens), and so all were dropped")
    return fitting, LengthReport(dropped, truncated)


def _truncated(example: Example, limit: int, length: Length) -> Example | None:
    """The example with the longest beginning of its question that fits. Image tags, earlier turns and what the
    prompt adds at its end stay whole; None where these alone are too long."""
    tags = list(IMAGE_TAG.finditer(example.question))
    characters = len(example.question) - sum(len(tag.group()) for tag in tags)
    best, low, high = None, 0, characters - 1  # of all the text, which does not fit, one character goes at least
    while low <= high:
        kept = (low + high) // 2
        cut = replace(example, question=_cut(example.question, kept))
        if length(cut) <= limit:
            best, low = cut, kept + 1
        else:
            high = kept - 1
    return best


def _cut(question: str, kept: int) -> str:
    """The question with only its first `kept` characters, but every image tag."""
    pieces: list[str] = []
    start = 0
    for tag in IMAGE_TAG.finditer(question):
        pieces += [question[start : tag.start()][:kept], tag.group()]
        kept -= len(pieces[-2])
        start = tag.end()
    return "".join([*pieces, question[start:][:kept]])
