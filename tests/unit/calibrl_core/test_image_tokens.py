"""Lengths of prompts from the sizes of their images equal those of encoded prompts, in several families."""

import copy
import dataclasses
from typing import Any

import pytest
from transformers import Gemma3Processor, Idefics3Processor, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.image_tokens import CHECKED, ImageTokens
from calibrl_core.models.policy import Policy
from tests.support.image_processors import MARKS, TEMPLATE, QwenProcessor, picture
from tests.support.pictures import png

SIZES = [(56, 56), (140, 56), (60, 200), (300, 90), (28, 120), (33, 71), (250, 250)]
GEMMA_MARKS = {"boi_token": "<|vision_start|>", "eoi_token": "<|vision_end|>", "image_token": "<|image_pad|>"}


class CountingQwenProcessor(QwenProcessor):
    """Counts like Qwen2_5_VLProcessor."""

    def _get_num_multimodal_tokens(self, image_sizes: Any) -> Any:
        images: Any = self.image_processor
        patches = [images.get_number_of_image_patches(*size, {}) for size in image_sizes]
        return {"num_image_tokens": [count // 4 for count in patches]}


def idefics(tokenizer: Any) -> Any:
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_tokens(["<global-img>", *places], special_tokens=True)
    images = Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    template = TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")
    return Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def llava(tokenizer: Any) -> Any:
    square = {"height": 56, "width": 56}
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=square)
    options = {"num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    return LlavaProcessor(
        images, tokenizer, patch_size=14, image_token="<|image_pad|>", chat_template=TEMPLATE, **options
    )


def gemma(tokenizer: Any) -> Any:
    for name, mark in GEMMA_MARKS.items():
        setattr(tokenizer, name, mark)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(mark))
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    template = TEMPLATE.replace("<|image_pad|><|vision_end|>", "")
    return Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)


FAMILIES = {"idefics3": idefics, "llava": llava, "gemma3": gemma, "qwen2.5-vl": CountingQwenProcessor}


@pytest.fixture
def tokenizer(policy: Policy) -> Any:
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    return tokenizer


@pytest.fixture
def prompts(examples: list[Example]) -> list[Example]:
    """Prompts with one image or two, of different sizes, in different places of the text."""
    shown = [picture(number, *size) for number, size in enumerate(SIZES)]
    ones = [
        dataclasses.replace(examples[0], images=(one,), question=f"See <image> {'now ' * number}?")
        for number, one in enumerate(shown)
    ]
    twos = [dataclasses.replace(examples[0], images=(shown[1], one)) for one in shown]
    return [*ones[: CHECKED - 1], twos[0], *ones[CHECKED - 1 :], *twos[1:]]


@pytest.mark.parametrize("limits", [{}, {"min_pixels": 9_000, "max_pixels": 20_000}], ids=["as they are", "scaled"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_lengths_from_sizes_are_those_of_encoding(
    family: Any, limits: Any, tokenizer: Any, prompts: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    form, processor = PromptFormat(**limits), family(tokenizer)
    real = PromptEncoder(processor, None, form)
    encoded = [real.processed(prompt)["input_ids"].shape[1] for prompt in prompts]
    counting = PromptEncoder(processor, None, form)
    before = counting.lengths(prompts[:CHECKED])
    monkeypatch.setattr("calibrl_core.models.encoding.open_image", lambda data: pytest.fail("pixels were decoded"))
    assert before + counting.lengths(prompts[CHECKED:]) == encoded


def test_a_processor_that_counts_wrongly_is_not_asked_again(
    policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square image is four tokens for it, but the processor makes as many of any other."""
    wrong = {"num_image_tokens": [4]}
    monkeypatch.setattr(type(policy.processor), "_get_num_multimodal_tokens", lambda self, image_sizes: wrong)
    prompts = [
        dataclasses.replace(examples[0], images=(png(size=28 * number),) * number) for number in range(1, CHECKED + 3)
    ]
    encoder = PromptEncoder(policy.processor, None)
    assert encoder.lengths(prompts) == [encoder.processed(one)["input_ids"].shape[1] for one in prompts]


def test_a_processor_that_cannot_count_is_not_asked() -> None:
    counter = ImageTokens(object())
    for _ in range(CHECKED):
        counter.compare(5, [(28, 28)], 9)
    assert counter.count(5, [(28, 28)]) is None
