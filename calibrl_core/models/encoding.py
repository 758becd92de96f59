"""Encodes prompts for the model: chat template, tokenizer, image processor, positions.

`[R, L]`: prompts, left-padded tokens.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from calibrl_core.data.image_decoding import open_image
from calibrl_core.data.prompts import DEFAULT_FORMAT, PromptFormat, messages
from calibrl_core.data.schema import DataError, Example
from calibrl_core.data.stored_images import image_sizes
from calibrl_core.models.image_sizes import ERRORS, ImageSizes, size_refusal
from calibrl_core.models.image_tokens import ImageTokens
from calibrl_core.models.reserved_tokens import media_tokens

ENCODED_MEGABYTES = 1024  # of encoded prompts in memory between steps; older ones are encoded again
# For a tokenizer without a chat template, such as a base model's.
PLAIN_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}{% for message in messages %}{{ message['role'].capitalize() }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE_TOKEN{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
REFUSALS = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)  # of a template
PROBE = "What is 6 * 7?"
Shape = tuple[tuple[str, tuple[str, ...]], ...]  # of messages: role and kinds of parts
Key = tuple[str, Sequence[bytes]]  # of a prompt: its messages and images
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")  # outputs of processors: kinds of tokens, such as of an image
# Outputs of the processor that are not image tensors.
PER_TOKEN = ("input_ids", "attention_mask", "position_ids", *TOKEN_TYPES)
# For a prefix language model (PaliGemma): its processor adds the first token, behind the images, and the last one.
PREFIX_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] if part['type'] == 'image' %}IMAGE_TOKEN"
    "{% endfor %}{% endfor %}{% for message in messages %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '\n' if not loop.last }}{% endfor %}"
)


@dataclass(frozen=True)
class PromptRows:
    """Encoded prompts, one per row, with the image tensors that the model needs."""

    input_ids: Tensor  # [R, L] long, left-padded
    attention_mask: Tensor  # [R, L] long
    position_ids: Tensor  # [R, L] long, or [3, R, L] if the model's positions have three axes
    next_positions: Tensor  # [R] long, position of the completion's first token; the same on all axes
    token_types: dict[str, Tensor]  # [R, L] long each, by the names of the processor; 0 at padding
    images: dict[str, Tensor]  # tensors of all rows' images, in order; empty without images


class PromptEncoder:
    """Encodes examples, with a cache of the most recent ones."""

    def __init__(
        self,
        processor: Any,
        positions: Callable[..., tuple[Tensor, Tensor]] | None,
        form: PromptFormat = DEFAULT_FORMAT,
        *,
        bfloat16: bool = False,
    ) -> None:
        """Prepare the processor. `positions`: the model's `get_rope_index` if its positions have three
        axes, else None. `bfloat16`: return pixels in bfloat16, the precision in which the model computes them.
        """
        self.processor, self.form, self.bfloat16 = processor, form, bfloat16
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.takes_images = hasattr(processor, "image_processor")
        # Tokens of a prefix see each other both ways; those of the suffix, which have the type 1, only earlier ones.
        self.has_prefix = "suffix" in inspect.signature(type(processor).__call__).parameters
        self._positions = positions
        self._encoded: OrderedDict[Key, dict[str, Tensor]] = OrderedDict()
        self._encoded_bytes = 0
        self._holds = False
        self.ahead: Callable[[Example], dict[str, Tensor] | None] | None = None  # returns results of worker processes
        self.encodings = 0  # prompts that were encoded since the start, here or in a worker process
        self._lengths: dict[int, int] = {}  # of all prompts ever measured, by the hash of their key
        self._image_tokens = ImageTokens(processor)
        self._sizes = ImageSizes(processor)
        self._media_tokens = media_tokens(processor) if self.takes_images else ()
        self._refusals: dict[Shape, str | None] = {}
        if form.chat_template:
            processor.chat_template = form.chat_template
        elif not getattr(processor, "chat_template", None):
            plain = PREFIX_TEMPLATE if self.has_prefix else PLAIN_TEMPLATE
            plain = plain.replace("IMAGE_TOKEN", getattr(processor, "image_token", ""))
            processor.chat_template = getattr(self.tokenizer, "chat_template", None) or plain

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all prompts that are encoded from now on until the end, so that each is encoded once, whatever memory
        they need.
        """
        self._holds = True
        try:
            yield
        finally:
            self._holds = False
            self._drop_oldest()

    def lengths(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of tokens of each prompt, images included."""
        return [self._length(example) for example in examples]

    def _length(self, example: Example) -> int:
        key = hash(self._key(example))
        if key not in self._lengths:
            self._lengths[key] = self._measured(example)
        return self._lengths[key]

    def _measured(self, example: Example) -> int:
        """Return the number of tokens of a prompt, from the sizes of its images if the processor can count."""
        if not example.images:
            return self.encode_one(example)["input_ids"].shape[1]
        text_tokens = len(self.tokenizer(self._text(example), add_special_tokens=False).input_ids)
        sizes = [_size_within(*size, self.form) for size in image_sizes(example.images)]
        counted = self._image_tokens.count(text_tokens, sizes)
        if counted is not None:
            return counted
        length = self.encode_one(example)["input_ids"].shape[1]
        self._image_tokens.compare(text_tokens, sizes, length)
        return length

    def encode(self, examples: Sequence[Example], pad_id: int) -> PromptRows:
        """Return one row per example, left-padded with `pad_id`. Shapes: see `PromptRows`.

        Raises:
            DataError: an example has images and the model takes none, an image cannot be decoded, or its text contains
                one of the model's image tokens.
        """
        encoded = [self.encode_one(example) for example in examples]
        longest = max(one["input_ids"].shape[1] for one in encoded)

        def rows(name: str, fill: int) -> Tensor:
            found = [one.get(name, torch.zeros_like(one["input_ids"])) for one in encoded]
            return torch.cat([pad(one, (longest - one.shape[-1], 0), value=fill) for one in found], dim=-2)

        position_ids = rows("position_ids", 0)
        names = {name for one in encoded for name in one}
        types = {name: rows(name, 0) for name in TOKEN_TYPES if name in names}
        images = {
            name: _stacked([one[name] for one in encoded if name in one])
            for name in sorted(names.difference(PER_TOKEN))
        }
        last = position_ids.amax(-1) if position_ids.ndim == 2 else position_ids.amax((0, -1))
        return PromptRows(rows("input_ids", pad_id), rows("attention_mask", 0), position_ids, last + 1, types, images)

    def _key(self, example: Example) -> Key:
        """Return everything that a prompt is made of. Not the id: two files can give their rows the same ids."""
        return repr(messages(example, self.form)), example.images

    def keeps(self, example: Example) -> bool:
        """Return if the example is encoded and kept."""
        return self._key(example) in self._encoded

    def encode_one(self, example: Example) -> dict[str, Tensor]:
        """Return `processed` of the example with its positions, and keep it.

        Raises:
            DataError: as `encode`.
        """
        key = self._key(example)
        encoded = self._encoded.pop(key, None)
        if encoded is None:
            encoded = (self.ahead(example) if self.ahead else None) or self.processed(example)
            encoded["position_ids"] = self._position_ids(encoded)
            self.encodings += 1
            self._lengths[hash(key)] = encoded["input_ids"].shape[1]
            self._encoded_bytes += sum(tensor.nbytes for tensor in encoded.values())
        self._encoded[key] = encoded
        if not self._holds:
            self._drop_oldest()
        return encoded

    def _drop_oldest(self) -> None:
        while self._encoded_bytes > ENCODED_MEGABYTES * 2**20 and len(self._encoded) > 1:
            _, oldest = self._encoded.popitem(last=False)
            self._encoded_bytes -= sum(tensor.nbytes for tensor in oldest.values())

    def unexpanded(self, example: Example) -> tuple[list[int], list[Image.Image]]:
        """Return the prompt's tokens with one placeholder per image, and its images: input of an engine with its own
        image processor.

        Raises:
            DataError: as `encode`.
        """
        text = self._text(example)
        return self.tokenizer(text, add_special_tokens=False).input_ids, _pictures(example, self.form)

    def processed(self, example: Example) -> dict[str, Tensor]:
        """Return what the processor makes of a prompt: the arguments of the model's forward pass, each `[1, ...]`.

        Raises:
            DataError: as `encode`.
        """
        text = self._text(example)
        images = {"images": [_pictures(example, self.form)]} if example.images else {}
        process = self.processor
        if self.has_prefix and not images:  # its processor refuses a prompt without images
            process, text = self._prefix, f"{self.tokenizer.bos_token}{text}\n"
        # The chat template contains the special tokens already.
        try:
            found = dict(process(text=[text], **images, add_special_tokens=False, return_tensors="pt"))
        except ERRORS as error:
            if not images:
                raise
            sizes = [picture.size for picture in images["images"][0]]
            raise DataError(f"{example.id}: {size_refusal(sizes, error)}") from error
        found.pop("labels", None)  # of PaliGemma's processor, for a loss that is not used here
        pixels = {name: tensor for name, tensor in found.items() if name.startswith("pixel_values")}
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32  # Llama 4's processor always returns bfloat16
        found |= {name: tensor.to(dtype) for name, tensor in pixels.items() if tensor.is_floating_point()}
        return found

    def _prefix(self, **named: Any) -> dict[str, Tensor]:
        """Return the tokens of a prefix, all of type 0."""
        found = dict(self.tokenizer(**named))
        return found | {"token_type_ids": torch.zeros_like(found["input_ids"])}

    def completed_types(self, name: str, types: Tensor, of_prompt: Tensor) -> Tensor:
        """Return token types `[...]` of prompts with those of completions where `of_prompt` `[...]` bool is False.

        `name`: one of `TOKEN_TYPES`.
        """
        return types.where(of_prompt, int(self.has_prefix and name == "token_type_ids"))

    def _text(self, example: Example) -> str:
        return self.render(self._messages(example))

    @cached_property
    def opening(self) -> str:
        """Return what the chat template opens of each completion, from `<think>` on; an empty text if it opens nothing.

        Templates of thinking models end the prompt with `<think>`, so that completions begin inside the element.
        """
        try:
            text = self.render([text_message("user", PROBE)])
        except REFUSALS:
            return ""
        tail = text.rpartition(PROBE)[2]
        return tail[tail.find("<think>") :] if "<think>" in tail else ""

    def continued(self, expert: str) -> str:
        """Return an expert without what the chat template opens of it already."""
        opened = self.opening.strip()
        return expert.lstrip().removeprefix(opened) if opened and expert.lstrip().startswith(opened) else expert

    def _refusal(self, turns: list[dict[str, Any]]) -> str | None:
        """Return why the chat template refuses messages, or None. Renders text only, and only once per order of roles:
        templates refuse roles, not words.
        """
        shape = tuple((turn["role"], tuple(part["type"] for part in turn["content"])) for turn in turns)
        if shape not in self._refusals:
            self._refusals[shape] = None
            try:
                self.render(turns)
            except REFUSALS as error:
                roles = ", ".join(turn["role"] for turn in turns)
                self._refusals[shape] = (
                    f"the chat template refuses the roles {roles} ({_one_line(error)}): change the messages of these "
                    "rows (or prompts.system), or set prompts.chat_template"
                )
        return self._refusals[shape]

    def _messages(self, example: Example) -> list[dict[str, Any]]:
        found = messages(example, self.form)
        if reason := self._unfit(found, example):
            raise DataError(f"{example.id} {reason}")
        return found

    def _unfit(self, turns: list[dict[str, Any]], example: Example) -> str | None:
        """Return why the model can take no such messages, or None: text with a special token for images, which would
        become a part of the prompt that is not text, or images for a text model.
        """
        for token in self._media_tokens:
            if any(token in part.get("text", "") for one in turns for part in one["content"]):
                return f"has a text that contains {token}, which the model reserves for images: remove it"
        if example.images and not self.takes_images:
            return "has images, but this model takes none: choose an image-text model"
        return None

    def fault(self, example: Example) -> str | None:
        """Return why the example cannot be encoded, or None. Renders each order of roles once, and decodes no pixel."""
        turns = messages(example, self.form)
        sizes = (_size_within(*size, self.form) for size in image_sizes(example.images))
        return (
            self._unfit(turns, example)
            or self._refusal(turns)
            or next((refused for size in sizes if (refused := self._sizes.refusal(*size))), None)
        )

    def render(self, turns: list[dict[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """Return messages as the chat template writes them. Raises the errors of the template: `REFUSALS`."""
        if not self.takes_images:  # templates of text models expect text, not parts
            turns = [{**turn, "content": "".join(part["text"] for part in turn["content"])} for turn in turns]
        text: str = self.processor.apply_chat_template(
            turns, add_generation_prompt=add_generation_prompt, tokenize=False, **self.form.chat_template_kwargs
        )
        return text

    def _position_ids(self, encoded: dict[str, Tensor]) -> Tensor:
        running = torch.arange(encoded["input_ids"].shape[1])[None]  # [1, L]
        if self._positions is None:
            return running
        if "mm_token_type_ids" not in encoded:  # no image
            return running.expand(3, -1, -1)
        grids = {name: tensor for name, tensor in encoded.items() if name.endswith("_grid_thw")}
        return self._positions(encoded["input_ids"], mm_token_type_ids=encoded["mm_token_type_ids"], **grids)[0]


def text_message(role: str, text: str) -> dict[str, Any]:
    """Return a message without images, in the format of `render`."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _pictures(example: Example, form: PromptFormat) -> list[Image.Image]:
    """Return the images of an example, decoded and scaled.

    Raises:
        DataError: an image cannot be decoded.
    """
    encoded = list(example.images)  # the error of a changed file names the row
    try:
        return [_scaled(open_image(data), form) for data in encoded]
    except DataError as problem:
        raise DataError(f"{example.id}: {problem}; replace it or remove the row") from problem


def _scaled(picture: Image.Image, form: PromptFormat) -> Image.Image:
    size = _size_within(picture.width, picture.height, form)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def _size_within(width: int, height: int, form: PromptFormat) -> tuple[int, int]:
    """Return the size of an image within `min_pixels` and `max_pixels`: both sides by the same factor, rounded to whole
    pixels towards the range. `max_pixels` always holds.
    """
    if form.min_pixels and width * height < form.min_pixels:
        factor = math.sqrt(form.min_pixels / (width * height))
        width, height = math.ceil(width * factor), math.ceil(height * factor)
    if form.max_pixels and width * height > form.max_pixels:
        factor = math.sqrt(form.max_pixels / (width * height))
        sides = (max(1, int(width * factor)), max(1, int(height * factor)))
        width, height = (min(side, form.max_pixels) for side in sides)  # beside a side of 1 pixel
    return width, height


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors along the first dimension, each padded with 0 to the largest size of the others.

    Models whose images have a second dimension, or whose pixels have a mask, treat entries of only 0 as padding.
    """
    sizes = torch.tensor([tensor.shape[1:] for tensor in tensors]).amax(0).tolist()
    filled = []
    for tensor in tensors:
        missing = [size - own for size, own in zip(sizes, tensor.shape[1:], strict=True)]
        filled.append(pad(tensor, [side for size in reversed(missing) for side in (0, size)]))
    return torch.cat(filled)
