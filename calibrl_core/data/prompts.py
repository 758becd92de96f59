"""Converts examples to chat messages: images, the question, and an instruction on the form of the answer."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from calibrl_core.data.image_tags import has_tag
from calibrl_core.data.schema import Example
from calibrl_core.settings.base import StrictSettings

INSTRUCTION = "Reason in <think></think>, then answer in <answer></answer>."
IMAGE_TAG = re.compile(r"<image>\s*")
_REQUESTS = ("<answer>", "\\boxed")  # a prompt that contains one requests an answer in this form
# Arguments of `apply_chat_template` and variables of every template, which the trainer sets itself.
_RESERVED = frozenset(
    [
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "conversations",
        "documents",
        "load_audio_from_video",
        "max_length",
        "messages",
        "padding",
        "processor_kwargs",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    ]
)

TemplateVariable = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)]
TemplateValue = bool | int | float | Annotated[str, Field(max_length=1000)]


class PromptFormat(StrictSettings):
    """Form of the prompts: messages, chat template and size of the images."""

    system: str | None = Field(
        None,
        min_length=1,
        max_length=20_000,
        description="Text of the system message of rows that have none. None: no such message.",
    )
    instruction: str | None = Field(
        INSTRUCTION,
        min_length=1,
        max_length=20_000,
        description="Text that is added at the end of each prompt, unless the prompt requests the same form of answer "
        "(<answer> or \\boxed) already. None: no text.",
    )
    chat_template: str | None = Field(
        None,
        min_length=1,
        max_length=50_000,
        description="Chat template (Jinja) that replaces the one of the model, also in its checkpoints. None: the "
        "template of the model.",
    )
    chat_template_kwargs: dict[TemplateVariable, TemplateValue] = Field(
        default_factory=dict,
        max_length=32,
        description="Variables of the chat template, such as enable_thinking: false. Texts, numbers, true or false.",
    )
    max_pixels: int | None = Field(
        None,
        ge=1,
        description="Maximum pixels (width x height) per image. Larger images are scaled down, with the same aspect "
        "ratio, before the image processor of the model, whose own limits still apply. None: no limit.",
    )
    min_pixels: int | None = Field(
        None,
        ge=1,
        le=50_000_000,
        description="Minimum pixels (width x height) per image. Smaller images are scaled up, with the same aspect "
        "ratio, before the image processor of the model, whose own limits still apply. None: no limit.",
    )

    @field_validator("system", "instruction")
    @classmethod
    def _has_no_image(cls, text: str | None) -> str | None:
        if text and has_tag(text):
            raise ValueError("must not contain <image> or a similar tag, which marks images of rows: remove it")
        return text

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_free(cls, values: dict[str, TemplateValue]) -> dict[str, TemplateValue]:
        if taken := sorted(_RESERVED & values.keys()):
            raise ValueError(f"the trainer sets {', '.join(taken)} itself: remove it")
        return values

    @model_validator(mode="after")
    def _leaves_a_size(self) -> Self:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels must not be above max_pixels: lower it")
        return self


DEFAULT_FORMAT = PromptFormat()


def messages(example: Example, form: PromptFormat = DEFAULT_FORMAT) -> list[dict[str, Any]]:
    """Return the earlier turns and the question, in the format of chat templates.

    Every image reaches the model: each `<image>` of the texts is an image, in order; images without any such tag are
    before the question. The instruction of `form` is appended, unless the prompt requests the same form of answer
    itself or the example has `asks_for_answer=False`.
    """
    turns = [*((turn.role, turn.text) for turn in example.earlier), ("user", example.question)]
    if form.system and not any(role == "system" for role, _ in turns):
        turns.insert(0, ("system", form.system))
    images = len(example.images)
    tags = sum(len(IMAGE_TAG.findall(text)) for _, text in turns)
    parts: list[dict[str, Any]] = []
    for role, text in turns:
        placed = min(len(IMAGE_TAG.findall(text)), images)
        images -= placed
        parts.append({"role": role, "content": list(_content(text, placed))})
    question = parts[-1]["content"]
    question[:0] = [{"type": "image"} for _ in range(len(example.images) - tags)]
    if example.asks_for_answer and form.instruction and not _requested(form.instruction, [text for _, text in turns]):
        question.append({"type": "text", "text": f"\n{form.instruction}"})
    return parts


def _requested(instruction: str, texts: list[str]) -> bool:
    """Return true if the texts contain the instruction, or request an answer in the form that it requests."""
    marks = (instruction, *(mark for mark in _REQUESTS if mark in instruction))
    return any(mark in text for mark in marks for text in texts)


def _content(text: str, images: int) -> Iterator[dict[str, str]]:
    """Yield the parts of a text, with an image at each of its first `images` tags."""
    for index, piece in enumerate(IMAGE_TAG.split(text)):
        if 0 < index <= images:
            yield {"type": "image"}
        if piece:
            yield {"type": "text", "text": piece}
