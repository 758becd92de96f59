"""The digits in their ten parts: what is drawn is what is asked and answered, and test digits are the test's alone."""

import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from calibrl.schemas import EvaluateSpec, job_spec_adapter
from calibrl_core import data
from calibrl_core.data.builtin import digits
from calibrl_core.data.schema import DIGITS_IN_DOMAIN, DIGITS_OUT_OF_DOMAIN, SPLITS, BuiltinData, Example, Split
from calibrl_core.models.policy import Policy
from calibrl_core.verifiers.base import extract_answer, follows_format

TESTS = (*DIGITS_IN_DOMAIN, *DIGITS_OUT_OF_DOMAIN)


def load(split: Split, rows: int | None = 20) -> Sequence[Example]:
    return data.load(BuiltinData(builtin="digits", split=split, rows=rows))


def pixels(example: Example) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(example.images[0])).convert("L"), dtype=float)


@cache
def inks(part: str) -> NDArray[Any]:
    """The source digits `[N, 24, 24]` of a part as they are pasted."""
    images = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in digits._source_digits(part)[0]]
    return np.stack(
        [np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR), dtype=np.float32) for image in images]
    )


def nearest_digits(example: Example, places: tuple[Any, ...], part: str = "test") -> Iterator[tuple[int, float]]:
    """Return per place the label of the source digit with the least difference of ink, shifted by up to one pixel,
    and that difference in grey levels.
    """
    canvas, labels = pixels(example).astype(np.float32), digits._source_digits(part)[1]
    for x, y in places:
        crops = [canvas[y + dy : y + dy + 24, x + dx : x + dx + 24] for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
        errors = np.stack([np.abs(inks(part) - crop).mean((1, 2)) for crop in crops]).min(0)
        yield int(labels[errors.argmin()]), float(errors.min())


def drawn_labels(example: Example, places: tuple[Any, ...] = digits.PLACES) -> list[int]:
    return [label for label, _ in nearest_digits(example, places)]


def test_the_parts_share_no_source_digit() -> None:
    source = {part: {image.tobytes() for image in digits._source_digits(part)[0]} for part in digits.SPLIT_SHARES}
    assert not source["train"] & source["validation"]
    assert not source["train"] & source["test"]
    assert not source["validation"] & source["test"]
    assert sum(len(digits._source_digits(part)[1]) for part in digits.SPLIT_SHARES) == 1797


def test_there_are_eight_evaluation_splits_four_in_domain_and_four_out() -> None:
    assert len(DIGITS_IN_DOMAIN) == len(DIGITS_OUT_OF_DOMAIN) == 4
    assert set(digits.PARTS) == set(SPLITS["digits"]) == {"train", "validation", *TESTS}
    assert all(digits.PARTS[split].source == "test" for split in TESTS)


@pytest.mark.parametrize("split", SPLITS["digits"])
def test_a_split_is_the_same_every_time_and_its_experts_right(split: Split) -> None:
    first = load(split)
    assert first == load(split)
    assert len({example.id for example in first}) == len(first) == 20
    assert first[0].id == f"digits/{split}/0"
    experts = [example.expert or "" for example in first]
    assert [extract_answer(expert) for expert in experts] == [example.answer for example in first]
    assert all(follows_format(expert) for expert in experts)
    assert "On the left I see" in experts[1] and "On the left" not in experts[0]
    terse = data.load(BuiltinData(builtin="digits", split=split, rows=2, experts="terse"))
    assert "On the left" not in str(terse[1].expert)
    assert pixels(first[0]).shape == (56, 56)


@pytest.mark.parametrize("split", [*DIGITS_IN_DOMAIN, "test-noise"])
def test_the_drawn_digits_add_up(split: Split) -> None:
    for example in load(split):
        left, right = drawn_labels(example)
        assert left + right == int(example.answer)
        assert example.question == digits.QUESTION
        assert split != "test-small-sums" or left + right <= 9
        assert split != "test-large-sums" or left + right >= 10
        assert split != "test-same-digit" or left == right


def test_slices_differ_from_the_whole_in_the_kept_rows_only() -> None:
    answers = {split: {int(example.answer) for example in load(split, None)} for split in DIGITS_IN_DOMAIN}
    assert answers["test"] == set(range(19))
    assert answers["test-small-sums"] == set(range(10))
    assert answers["test-large-sums"] == set(range(10, 19))
    assert answers["test-same-digit"] == set(range(0, 19, 2))


@pytest.mark.parametrize("split", ["test", "test-same-digit", "test-three-digits"])
def test_test_pictures_show_ink_of_the_test_part(split: Split) -> None:
    for example in load(split, 6):
        places = digits.THREE_PLACES if "three" in split else digits.PLACES
        assert all(error == 0 for _, error in nearest_digits(example, places, "test"))  # exactly that source digit
        assert all(error > 1 for _, error in nearest_digits(example, places, "train"))


def test_three_digits_are_drawn_and_asked_for() -> None:
    for example in load("test-three-digits"):
        assert sum(drawn_labels(example, digits.THREE_PLACES)) == int(example.answer)
        assert example.question == "What is the sum of the three digits?"
    assert max(int(example.answer) for example in load("test-three-digits", None)) > 18


def test_the_difference_is_asked_of_the_same_pictures() -> None:
    plain, other = load("test"), load("test-difference")
    assert [example.images for example in plain] == [example.images for example in other]
    for example in other:
        left, right = drawn_labels(example)
        assert abs(left - right) == int(example.answer)
        assert "difference" in example.question
    assert [example.answer for example in plain] != [example.answer for example in other]


def test_noise_changes_the_picture_only() -> None:
    for clean, noisy in zip(load("test", 3), load("test-noise", 3), strict=True):
        assert clean.answer == noisy.answer
        change = pixels(clean) - pixels(noisy)
        assert 10 < np.abs(change).mean() < 60
        assert (np.abs(change) > 0).mean() > 0.4  # everywhere, but where black is cut at black


def test_rotation_turns_each_digit_by_15_to_30_degrees() -> None:
    def tilt(ink: NDArray[Any]) -> Any:
        """Radians between the main axis of a digit's ink and the vertical."""
        y, x = np.indices(ink.shape) - 11.5
        x, y = x - (x * ink).sum() / ink.sum(), y - (y * ink).sum() / ink.sum()
        return 0.5 * np.arctan2(2 * (x * y * ink).sum(), ((y**2 - x**2) * ink).sum())

    turns = []
    for clean, turned in zip(load("test"), load("test-rotation"), strict=True):
        assert clean.answer == turned.answer and clean.question == turned.question
        for x, y in digits.PLACES:
            inks = [pixels(one)[y : y + 24, x : x + 24] for one in (clean, turned)]
            change = np.degrees(tilt(inks[1]) - tilt(inks[0]))
            turns.append(abs((change + 90) % 180 - 90))
    assert 13 < np.median(turns) < 32  # round digits have no axis, but most have
    assert np.mean(np.array(turns) < 8) < 0.1


def test_the_tiny_model_can_take_every_split(policy: Policy) -> None:
    for split in TESTS:
        (example,) = load(split, 1)
        rows = policy.encode([example])
        assert rows.input_ids.shape[1] < 130
        assert example.question in policy.tokenizer.decode(rows.input_ids[0])


def test_the_example_names_all_eight() -> None:
    path = Path(__file__).parents[3] / "docs/examples/evaluate-splits.yaml"
    spec = job_spec_adapter.validate_python(yaml.safe_load(path.read_text()))
    assert isinstance(spec, EvaluateSpec)
    assert [source.split for source in spec.data if isinstance(source, BuiltinData)] == [*TESTS]
