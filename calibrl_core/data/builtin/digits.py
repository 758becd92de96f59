"""The built-in digits: two handwritten digits on a canvas, and the question for their sum.

The digits are scikit-learn's (1,797 of 8 x 8 pixels, shipped with the package). Each *source* digit belongs to one of
train, validation and test, so that no two parts share a digit image. Eight evaluation splits are drawn from the test
part: four like training (`schema.DIGITS_IN_DOMAIN`), four in other ways (`schema.DIGITS_OUT_OF_DOMAIN`).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibrl_core.data.builtin.experts import with_experts_of, write_expert
from calibrl_core.data.schema import BuiltinData, Example, Split

CANVAS = 56  # pixels per side
DIGIT = 24  # pixels per side, enlarged three times
PLACES = ((2, 16), (30, 16))  # of each digit: pixels from the left, from the top
THREE_PLACES = ((2, 2), (30, 2), (16, 30))
JITTER = 1  # maximum displacement of a digit in pixels, in both directions
QUESTION = "What is the sum of the two digits?"
THREE_QUESTION = "What is the sum of the three digits?"
DIFFERENCE_QUESTION = "What is the difference of the two digits, the larger minus the smaller?"

SPLIT_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}  # of the source digits of each class
SPLIT_SEED = 20197
TEST_ROWS = 256
NOISE_STD = 40.0  # grey levels of 255
ANGLES = (15.0, 30.0)  # degrees by which a digit is rotated, in either direction


@dataclass(frozen=True)
class DigitsSplit:
    """Settings of one split. Splits with the same seed show the same digits, row by row."""

    source: str  # key of SPLIT_SHARES
    seed: int
    rows: int = TEST_ROWS
    question: str = QUESTION
    places: tuple[tuple[int, int], ...] = PLACES
    keeps: Callable[[list[int]], bool] = lambda digits: True  # other combinations are drawn again
    turned: bool = False
    noisy: bool = False


PARTS: dict[Split, DigitsSplit] = {
    "train": DigitsSplit("train", 1, rows=4096),
    "validation": DigitsSplit("validation", 2, rows=128),
    "test": DigitsSplit("test", 3),
    "test-small-sums": DigitsSplit("test", 4, keeps=lambda digits: sum(digits) < 10),
    "test-large-sums": DigitsSplit("test", 5, keeps=lambda digits: sum(digits) >= 10),
    "test-same-digit": DigitsSplit("test", 6, keeps=lambda digits: digits[0] == digits[1]),
    "test-noise": DigitsSplit("test", 3, noisy=True),
    "test-rotation": DigitsSplit("test", 3, turned=True),
    "test-three-digits": DigitsSplit("test", 7, question=THREE_QUESTION, places=THREE_PLACES),
    "test-difference": DigitsSplit("test", 3, question=DIFFERENCE_QUESTION),
}


def load(source: BuiltinData) -> list[Example]:
    """Return the examples of one split, always the same in the same order."""
    part = PARTS[source.split]
    images, labels = _source_digits(part.source)
    rng = np.random.default_rng([SPLIT_SEED, part.seed])
    count = min(source.rows or part.rows, part.rows)
    rows = [_example(source, part, row, images, labels, rng) for row in range(count)]
    return with_experts_of(source.experts, rows)


@cache
def _source_digits(part: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return images `[N, 8, 8]` (0 to 16) and labels `[N]` of one part; all classes are divided in the same shares."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    rng = np.random.default_rng(SPLIT_SEED)
    chosen: list[int] = []
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(bunch.target == digit))
        bounds = np.cumsum([round(share * len(members)) for share in SPLIT_SHARES.values()][:-1])
        parts = dict(zip(SPLIT_SHARES, np.split(members, bounds), strict=True))
        chosen.extend(parts[part])
    return bunch.images[chosen], bunch.target[chosen]


def _example(
    source: BuiltinData,
    part: DigitsSplit,
    row: int,
    images: NDArray[np.float64],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
) -> Example:
    picks = _picks(part, labels, rng)
    jitter = rng.integers(-JITTER, JITTER + 1, size=2 * len(picks))
    # A separate generator, so that splits with the same seed draw the same digits.
    changes = np.random.default_rng([SPLIT_SEED, row])
    canvas = np.zeros((CANVAS, CANVAS))
    for index, ((x, y), pick) in enumerate(zip(part.places, picks, strict=True)):
        angle = changes.uniform(*ANGLES) * changes.choice([-1, 1]) if part.turned else 0.0
        _paste(canvas, images[pick], x=x + jitter[2 * index], y=y + jitter[2 * index + 1], angle=angle)
    if part.noisy:
        canvas = canvas + changes.normal(0, NOISE_STD, canvas.shape)
    digits = [int(labels[pick]) for pick in picks]
    answer, terse, wordy = _solved(part, digits)
    return Example(
        id=f"digits/{source.split}/{row}",
        question=part.question,
        answer=str(answer),
        images=(_png(canvas),),
        expert=write_expert(source.experts, row, terse=terse, wordy=wordy, answer=answer),
    )


def _picks(part: DigitsSplit, labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the indices of the source digits of a row, one per place."""
    while True:
        picks = rng.integers(len(labels), size=len(part.places))
        if part.keeps(labels[picks].tolist()):
            return picks


def _solved(part: DigitsSplit, digits: list[int]) -> tuple[int, str, str]:
    """Return the answer, and an expert's reasoning in the terse style that the warm-up teaches and in other words.

    The second style makes positions misalign and the gap large, so that all four mismatch quadrants occur.
    """
    if part.question == DIFFERENCE_QUESTION:
        larger, smaller = max(digits), min(digits)
        answer, terse = larger - smaller, f"{larger}-{smaller}={larger - smaller}."
    else:
        answer = sum(digits)
        terse = f"{'+'.join(map(str, digits))}={answer}."
    left, right, *below = digits
    beneath = f", below {below[0]}" if below else ""
    return answer, terse, f"On the left I see {left}, on the right {right}{beneath}: {answer}."


def _paste(canvas: NDArray[np.float64], digit: NDArray[np.float64], *, x: int, y: int, angle: float) -> None:
    ink = Image.fromarray((digit * (255 / 16)).astype(np.uint8)).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR)
    if angle:
        ink = ink.rotate(angle, Image.Resampling.BILINEAR)
    canvas[y : y + DIGIT, x : x + DIGIT] = np.asarray(ink)


def _png(canvas: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()
