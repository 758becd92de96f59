"""Sizes that an image processor refuses, and special tokens in texts, are known before any image is processed."""

import copy
import dataclasses
import io
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import DataError, Example, FileData
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.image_sizes import ImageSizes
from calibrl_core.models.policy import Policy
from calibrl_core.models.reserved_tokens import media_tokens
from calibrl_core.run.row_check import check_rows


def example(width: int, height: int, orientation: int = 1) -> Example:
    buffer, tags = io.BytesIO(), Image.Exif()
    tags[274] = orientation
    Image.new("RGB", (width, height)).save(buffer, "PNG", exif=tags)
    return Example(id="x", question="How many?", answer="2", images=(buffer.getvalue(),))


class Refusing:
    """An image processor that cannot be asked: it refuses images without a pixel per patch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, images: list[Image.Image], return_tensors: str) -> None:
        self.seen += [one.size for one in images]
        if min(images[0].size) < 4:
            raise ValueError("too\n small")


def test_the_processor_of_the_model_is_asked() -> None:
    """Qwen2-VL takes an aspect ratio of 200, and no larger one."""
    sizes = ImageSizes(SimpleNamespace(image_processor=Qwen2VLImageProcessorPil()))
    assert sizes.refusal(10, 2000) is None
    refused = sizes.refusal(10, 2010)
    assert refused and refused.startswith("the model's image processor refuses an image of 10 x 2010 pixels (absolute")
    assert refused.endswith("): crop or resize it")


def test_a_processor_without_an_answer_tries_each_unusual_size_once() -> None:
    images = Refusing()
    sizes = ImageSizes(SimpleNamespace(image_processor=images))
    usual, small, again, strip = (sizes.refusal(*size) for size in ((300, 200), (3, 40), (3, 40), (40, 400)))
    assert (usual, strip) == (None, None)
    assert small == again and small is not None and "3 x 40 pixels (too small): crop or resize it" in small
    assert images.seen == [(3, 40), (40, 400)]


def test_a_size_without_a_number_of_patches_is_tried() -> None:
    class Unfinished(Refusing):
        def get_number_of_image_patches(self, *_: Any) -> int:
            raise AttributeError("size")

    images = Unfinished()
    sizes = ImageSizes(SimpleNamespace(image_processor=images))
    assert [sizes.refusal(300, 200), sizes.refusal(301, 200)] == [None, None]
    assert images.seen == [(300, 200)]  # the method is not asked again
    assert sizes.refusal(3, 40) is not None


def test_a_text_model_refuses_no_size() -> None:
    assert ImageSizes(object()).refusal(1, 4000) is None


@pytest.fixture
def strict(policy: Policy) -> PromptEncoder:
    """An encoder whose images are those of Qwen2-VL."""
    processor = copy.copy(policy.processor)
    processor.image_processor = Qwen2VLImageProcessorPil()
    return PromptEncoder(processor, None, PromptFormat(max_pixels=4_000_000))


def test_all_rows_with_such_images_are_named(strict: PromptEncoder) -> None:
    rows = [example(30, 30), example(10, 2010), example(2010, 10, orientation=6), example(10, 2020)]
    with pytest.raises(DataError) as refused:
        check_rows("data", FileData(path="/d/own.jsonl"), rows, strict.fault)
    first, second = str(refused.value).split("; ")
    assert first.startswith("data: /d/own.jsonl, row 2: the model's image processor refuses an image of 10 x 2010")
    assert first.endswith("crop or resize it, as in 1 more rows (3)")  # turned upright it has the same size
    assert second.startswith("/d/own.jsonl, row 4: ") and "10 x 2020 pixels" in second


def test_a_refusal_at_the_step_names_the_row(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("absolute aspect ratio must be smaller than 200")

    monkeypatch.setattr(type(policy.processor), "__call__", refuse)
    with pytest.raises(DataError, match=r"^x: the model's image processor refuses an image of 7 x 9 pixels \(absolute"):
        PromptEncoder(policy.processor, None).processed(example(7, 9))


@pytest.mark.parametrize("token", ["<fake_token_around_image>", "<global-img>"])
def test_a_special_token_for_images_is_never_a_text(policy: Policy, token: str) -> None:
    assert token in media_tokens(policy.processor)
    encoder = PromptEncoder(policy.processor, None)
    spoilt = dataclasses.replace(example(8, 8), question=f"What is {token}?", images=())
    assert encoder.fault(dataclasses.replace(spoilt, question="What is it?")) is None
    assert encoder.fault(spoilt) == (
        f"has a text that contains {token}, which the model reserves for images: remove it"
    )
    with pytest.raises(DataError, match=f"x has a text that contains {token}"):
        encoder.processed(spoilt)
