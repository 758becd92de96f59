"""Output of an imitated trainer: metrics that never repeat, and sampled groups with an image."""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
from PIL import Image

from calibrl_core.report import EventFile, SampleCompletion, SampleGroup

GROUP, TOKENS = 8, 40
PIXELS = 64


@cache
def names(count: int) -> list[str]:
    """Names of metrics."""
    return [f"family_{index % 10}/metric_{index:02d}" for index in range(count)]


def values(step: int, count: int) -> dict[str, float]:
    """Return a step's metrics."""
    made = random.Random(step)
    return {name: made.gauss(0.5, 0.2) for name in names(count)}


def emit_sample(report: EventFile, step: int, seed: int) -> None:
    """Report a group of completions with per-token values and a unique image."""
    made = random.Random(seed)
    numbers = [made.random() for _ in range(TOKENS)]
    completion = SampleCompletion(
        text="the digit is 7 " * 10,
        tokens=[f"token {index}" for index in range(TOKENS)],
        logprobs=numbers,
        entropies=numbers,
        gaps=[*numbers],
        ratios=[*numbers],
        left_out=0,
        rewards={"exact": 1.0},
        reward=1.0,
        advantage=0.5,
        passed=True,
        truncated=False,
    )
    group = SampleGroup(
        prompt_id=f"prompt-{seed}",
        prompt="Which digit is this?",
        answer="7",
        images=[report.save_image(_png(seed))],
        expert=None,
        completions=[completion] * GROUP,
    )
    report.emit("sample", step=step, group=group)


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (PIXELS, PIXELS, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
