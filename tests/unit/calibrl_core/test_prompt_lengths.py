"""Prompts that are too long: refused with rows and lengths, dropped, or cut in their question's text, with counts."""

from typing import Any

import pytest

from calibrl_core.config import PromptSettings
from calibrl_core.data.prompts import messages
from calibrl_core.data.schema import DataError, Example, Turn
from calibrl_core.models.policy import Policy
from calibrl_core.run.prompt_lengths import Length, LengthReport, fit_prompts

IMAGE = 10  # tokens


def example(question: str, images: int = 0, **fields: Any) -> Example:
    return Example(id=f"x/{question[:3]}", question=question, answer="", images=(b"",) * images, **fields)


def length(example: Example) -> int:
    """A token a character, ten an image, over all messages and what they add."""
    parts = [part for message in messages(example) for part in message["content"]]
    return sum(IMAGE if part["type"] == "image" else len(part["text"]) for part in parts)


BARE = length(example(""))  # what every prompt has: the instruction
SHORT, LONG, LONGER = example("abc"), example("def" * 10), example("ghi" * 20)


def fit(examples: list[Example], settings: PromptSettings, length: Length) -> tuple[list[Example], LengthReport]:
    fitting, report = fit_prompts(examples, settings, length)
    return list(fitting), report


def settings(tokens: int, too_long: str = "error") -> PromptSettings:
    return PromptSettings.model_validate({"max_tokens": BARE + tokens, "too_long": too_long})


def test_without_a_limit_nothing_is_counted() -> None:
    def count(example: Example) -> int:
        raise AssertionError("no prompt is counted")

    assert fit([LONG], PromptSettings(), count) == ([LONG], LengthReport())


@pytest.mark.parametrize("too_long", ["error", "drop", "truncate"])
def test_a_prompt_of_exactly_the_limit_is_kept(too_long: str) -> None:
    assert fit([SHORT, LONG], settings(30, too_long), length) == ([SHORT, LONG], LengthReport())


def test_all_that_are_too_long_are_named_with_their_lengths() -> None:
    with pytest.raises(DataError) as caught:
        fit([SHORT, LONG, LONGER], settings(29), length)
    assert str(caught.value) == (
        f"prompts of more than {BARE + 29} tokens: x/def has {BARE + 30}; x/ghi has {BARE + 60}; "
        "raise prompts.max_tokens, shorten these, or choose prompts.too_long: drop"
    )


def test_dropped_rows_are_counted() -> None:
    assert fit([LONGER, SHORT, LONG], settings(29, "drop"), length) == ([SHORT], LengthReport(dropped=2))
    with pytest.raises(DataError, match="every prompt has more than"):
        fit([LONGER, LONG], settings(29, "drop"), length)


def test_a_question_is_cut_to_the_longest_beginning_that_fits() -> None:
    (short, cut), report = fit([SHORT, LONGER], settings(29, "truncate"), length)
    assert (short, report) == (SHORT, LengthReport(truncated=1))
    assert cut.question == LONGER.question[:29]
    assert length(cut) == BARE + 29
    assert (cut.id, cut.answer) == (LONGER.id, LONGER.answer)


def test_images_earlier_turns_and_the_instruction_stay_whole() -> None:
    question = "abcde <image>\nfghij <image>klm"
    long = example(question, images=3, earlier=(Turn("system", "<image>be brief"),))
    whole = length(long)
    assert whole == BARE + 8 + 6 + 6 + 3 + 3 * IMAGE
    for tokens, kept in [
        (whole - 1, "abcde <image>\nfghij <image>kl"),
        (whole - 4, "abcde <image>\nfghij<image>"),
        (whole - 10, "abcde<image>\n<image>"),
        (whole - 15, "<image>\n<image>"),
    ]:
        (cut,), _ = fit([long], PromptSettings(max_tokens=tokens, too_long="truncate"), length)
        assert cut.question == kept
        assert length(cut) == tokens
        assert (cut.images, cut.earlier) == (long.images, long.earlier)


def test_a_prompt_too_long_even_when_cut_is_named() -> None:
    with pytest.raises(DataError, match=r"x/two has \d+, and exceeds the limit even without its question's text"):
        fit([SHORT, example("two", images=2)], settings(19, "truncate"), length)
    with pytest.raises(DataError, match="even without"):
        fit([example("", images=2)], settings(19, "truncate"), length)


def test_truncation_counts_a_prompt_at_most_11_times() -> None:
    counted = []

    def count(example: Example) -> Any:
        counted.append(example)
        return length(example)

    fit([example("a" * 1000)], settings(500, "truncate"), count)
    assert len(counted) <= 11


def test_the_real_tokenizer_and_image_tokens_are_counted(policy: Policy, examples: list[Example]) -> None:
    def tokens(example: Example) -> Any:
        return policy.encode([example]).input_ids.shape[1]

    (cut,), report = fit(examples[:1], PromptSettings(max_tokens=tokens(examples[0]) - 3, too_long="truncate"), tokens)
    assert report.truncated == 1
    assert examples[0].question.startswith(cut.question) and 0 < len(cut.question) < len(examples[0].question)
    assert tokens(cut) <= tokens(examples[0]) - 3
