"""Processors of images that need no torchvision, and pictures of random pixels."""

import io
from typing import Any

import torch
from PIL import Image

MARKS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|user|>{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class QwenProcessor:
    """Works like Qwen2_5_VLProcessor, which needs torchvision."""

    chat_template, image_token, video_token = TEMPLATE, *MARKS[:2]

    def __init__(self, tokenizer: Any) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer = tokenizer
        self.image_processor = Qwen2VLImageProcessorPil(
            patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
        )

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        return self.tokenizer.apply_chat_template(messages, chat_template=TEMPLATE, **options)

    def __call__(self, text: str, images: Any = None, **options: Any) -> Any:
        found, pieces = {}, text[0].split("<|image_pad|>")
        if images:
            found = dict(self.image_processor(images[0], return_tensors="pt"))
            counts = [int(grid.prod()) // 4 for grid in found["image_grid_thw"]]
            pieces[1:] = ["<|image_pad|>" * n + piece for n, piece in zip(counts, pieces[1:], strict=True)]
        found |= dict(self.tokenizer(["".join(pieces)], **options))
        if images:
            mark = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            found["mm_token_type_ids"] = (found["input_ids"] == mark).int()
        return found


class PlainProcessor:
    """Works like the processors of LLaVA and Gemma 3: a fixed number of marks and one square picture per image."""

    def __init__(self, tokenizer: Any, size: Any, marks: Any, image_token: Any, typed: Any) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.tokenizer, self._marks, self._image_token, self._typed = tokenizer, marks, image_token, typed
        square = {"height": size, "width": size}
        self.image_processor = CLIPImageProcessorPil(size=square, do_center_crop=False)
        self.chat_template = TEMPLATE

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        return self.tokenizer.apply_chat_template(messages, chat_template=TEMPLATE, **options)

    def __call__(self, text: str, images: Any = None, **options: Any) -> Any:
        found = dict(self.tokenizer([text[0].replace("<|image_pad|>", "<|image_pad|>" * self._marks)], **options))
        if images:
            found["pixel_values"] = self.image_processor(images[0], return_tensors="pt")["pixel_values"]
        if self._typed:
            found["token_type_ids"] = (found["input_ids"] == self._image_token).long()
        return found


def picture(seed: int, width: int = 56, height: int = 56) -> Any:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 255, (height, width, 3), generator=generator, dtype=torch.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels.numpy()).save(file, format="png")
        return file.getvalue()
