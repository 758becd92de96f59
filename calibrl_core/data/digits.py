"""The built-in data set: two handwritten digits on a canvas, and the question what their sum is.

The digits are scikit-learn's (1,797 of 8 x 8 pixels, shipped with the package). Each *source* digit belongs to one of
train, validation and test, so that no image of one part shows ink that another part has seen.
"""

import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibrl_core.data.schema import BuiltinData, Example, Split

CANVAS = 56  # pixels a side
DIGIT = 24  # pixels a side, enlarged three times
PLACES = ((2, 16), (30, 16))  # of each digit: pixels from the left, from the top
WANDER = 1  # pixels by which a digit misses its place, in both directions, at most
QUESTION = "What is the sum of the two digits?"

SPLIT_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}  # of the source digits of each class
SPLIT_SEED = 20197
ROWS: dict[Split, int] = {"train": 4096, "validation": 128, "test": 256, "test-noise": 256}
SOURCE: dict[Split, str] = {"train": "train", "validation": "validation", "test": "test", "test-noise": "test"}
ROW_SEED: dict[Split, int] = {"train": 1, "validation": 2, "test": 3, "test-noise": 3}
NOISE_STD = 40.0  # grey levels of 255, in test-noise only


def load(source: BuiltinData) -> list[Example]:
    """The examples of one split, always the same, in the same order."""
    images, labels = _source_digits(SOURCE[source.split])
    rng = np.random.default_rng([SPLIT_SEED, ROW_SEED[source.split]])
    count = min(source.rows or ROWS[source.split], ROWS[source.split])
    return [_example(source, row, images, labels, rng) for row in range(count)]


@cache
def _source_digits(part: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images `[N, 8, 8]` (0 to 16) and labels `[N]` of one part; the classes are divided in the same shares."""
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
    source: BuiltinData, row: int, images: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator
) -> Example:
    left, right = rng.integers(len(labels), size=2)
    wander = rng.integers(-WANDER, WANDER + 1, size=4)
    canvas = np.zeros((CANVAS, CANVAS))
    for index, (x, y) in enumerate(PLACES):
        digit = images[left if index == 0 else right]
        _paste(canvas, digit, x=x + wander[2 * index], y=y + wander[2 * index + 1])
    if source.split == "test-noise":
        canvas = canvas + np.random.default_rng([SPLIT_SEED, row]).normal(0, NOISE_STD, canvas.shape)
    first, second = int(labels[left]), int(labels[right])
    return Example(
        id=f"digits/{source.split}/{row}",
        question=QUESTION,
        answer=str(first + second),
        images=(_png(canvas),),
        expert=_expert(first, second, own_style=source.experts == "terse" or row % 2 == 0),
    )


def _expert(first: int, second: int, own_style: bool) -> str:
    """An expert's completion: half in the terse style that the warm-up teaches, half longer and in other words.

    The second kind is what makes positions misalign and the gap large, so that all four mismatch quadrants fill.
    """
    total = first + second
    thought = (
        f"{first}+{second}={total}." if own_style else f"On the left I see {first}, on the right {second}: {total}."
    )
    return f"<think>{thought}</think><answer>{total}</answer>"


def _paste(canvas: NDArray[np.float64], digit: NDArray[np.float64], *, x: int, y: int) -> None:
    ink = Image.fromarray((digit * (255 / 16)).astype(np.uint8)).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR)
    canvas[y : y + DIGIT, x : x + DIGIT] = np.asarray(ink)


def _png(canvas: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()
