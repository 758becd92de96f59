"""`prompts` of a spec: system message, instruction, chat template, and the size and number of images."""

import copy
import io
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from calibrl_core.config import EvaluateSettings, PromptSettings, TrainSettings
from calibrl_core.data.prompts import INSTRUCTION, PromptFormat, messages
from calibrl_core.data.schema import DataError, Example, Turn
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.policy import Policy
from calibrl_core.run.prompt_lengths import LengthReport, fit_prompts

BOXED = r"Put the answer in \boxed{}."


def example(question: str = "1+1?", *earlier: Turn, images: tuple[bytes, ...] = (), id: str = "x/1") -> Example:
    return Example(id=id, question=question, answer="2", earlier=earlier, images=images)


def texts(one: Example, **form: Any) -> list[tuple[str, str]]:
    found = messages(one, PromptFormat(**form))
    return [(turn["role"], "".join(part.get("text", "IMAGE") for part in turn["content"])) for turn in found]


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def encoder(policy: Policy, **form: Any) -> PromptEncoder:
    return PromptEncoder(copy.deepcopy(policy.processor), None, PromptFormat(**form))


def shown(encoder: PromptEncoder, one: Example) -> str:
    tokens, _ = encoder.unexpanded(one)
    return str(encoder.tokenizer.decode(tokens))


@pytest.mark.parametrize(
    ("question", "instruction", "expected"),
    [
        ("1+1?", INSTRUCTION, f"1+1?\n{INSTRUCTION}"),
        ("1+1?", None, "1+1?"),
        ("1+1?", BOXED, f"1+1?\n{BOXED}"),
        (r"1+1? The answer MUST BE in \boxed{}.", BOXED, r"1+1? The answer MUST BE in \boxed{}."),
        (r"1+1? The answer MUST BE in \boxed{}.", None, r"1+1? The answer MUST BE in \boxed{}."),
        (r"1+1? Use \boxed{}.", INSTRUCTION, f"1+1? Use \\boxed{{}}.\n{INSTRUCTION}"),
        ("1+1? Use <answer>.", BOXED, f"1+1? Use <answer>.\n{BOXED}"),
        ("1+1? Be brief.", "Be brief.", "1+1? Be brief."),
    ],
)
def test_the_instruction_is_added_where_it_is_missing(question: str, instruction: str | None, expected: str) -> None:
    assert texts(example(question), instruction=instruction) == [("user", expected)]


def test_the_system_message_is_for_rows_without_one() -> None:
    form = {"system": "Be exact.", "instruction": None}
    assert texts(example(), **form) == [("system", "Be exact."), ("user", "1+1?")]
    own = example("1+1?", Turn("system", "Be brief."))
    assert texts(own, **form) == [("system", "Be brief."), ("user", "1+1?")]
    asking = {"system": "End with <answer>."}  # requests the answer in the form of the instruction
    assert texts(example(), **asking) == [("system", "End with <answer>."), ("user", "1+1?")]


def test_a_chat_template_and_its_variables_replace_the_model_s(policy: Policy) -> None:
    template = "{% for m in messages %}[{{ m['content'][0]['text'] }}]{% endfor %}{% if quick %}!{% endif %}{{ tries }}"
    form = {"chat_template": template, "instruction": None}
    assert shown(encoder(policy, **form, chat_template_kwargs={"quick": True, "tries": 3}), example()) == "[1+1?]!3"
    quiet = encoder(policy, **form, chat_template_kwargs={"quick": False, "tries": "x"})
    assert shown(quiet, example()) == "[1+1?]x"
    assert quiet.processor.chat_template == template  # saved with checkpoints


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((400, 100), {}, (400, 100)),
        ((400, 100), {"max_pixels": 40_000}, (400, 100)),
        ((400, 100), {"max_pixels": 10_000}, (200, 50)),  # half of each side
        ((40, 10), {"min_pixels": 1_600}, (80, 20)),  # twice each side
        ((30, 30), {"max_pixels": 500}, (22, 22)),  # 22.36, rounded down
        ((30, 30), {"min_pixels": 1_000}, (32, 32)),  # 31.62, rounded up
        ((1, 1000), {"max_pixels": 100}, (1, 100)),  # no side below 1
        ((2, 3), {"min_pixels": 100, "max_pixels": 100}, (8, 12)),  # 9 x 13 is too large
    ],
)
def test_images_are_scaled_within_the_limits(
    policy: Policy, size: tuple[int, int], limits: dict[str, int], expected: tuple[int, int]
) -> None:
    _, (picture,) = encoder(policy, **limits).unexpanded(example(images=(png(*size),)))
    assert picture.size == expected


def test_the_image_processor_gets_the_scaled_image(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[Any] = []
    found = encoder(policy, max_pixels=400)
    original = type(found.processor).__call__

    def call(self: Any, **given: Any) -> Any:
        sizes.extend(picture.size for picture in given["images"][0])
        return original(self, **given)

    monkeypatch.setattr(type(found.processor), "__call__", call)
    found.encode([example("<image>1+1?", images=(png(40, 40),))], 0)
    assert sizes == [(20, 20)]


def test_rows_with_too_many_images_are_named_or_dropped() -> None:
    def no_length(one: Example) -> int:
        raise AssertionError("no prompt is counted")

    two, one = example(images=(b"", b""), id="x/1"), example(images=(b"",), id="x/2")
    for too_long in ("error", "truncate"):
        refusing = PromptSettings.model_validate({"max_images": 1, "too_long": too_long})
        with pytest.raises(DataError) as caught:
            fit_prompts([two, one], refusing, no_length)
        assert str(caught.value) == (
            "prompts of more than 1 images: x/1 has 2; "
            "raise prompts.max_images, remove images, or choose prompts.too_long: drop"
        )
    dropping = PromptSettings(max_images=1, too_long="drop")
    kept, report = fit_prompts([two, one], dropping, no_length)
    assert (list(kept), report) == ([one], LengthReport(dropped_for_images=1))
    with pytest.raises(DataError, match="every prompt has more than 1 images"):
        fit_prompts([two], dropping, no_length)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"system": "See <image>."}, "must not contain <image>"),
        ({"instruction": ""}, "at least 1 character"),
        ({"chat_template_kwargs": {"tokenize": True}}, "the trainer sets tokenize itself"),
        ({"chat_template_kwargs": {"a b": 1}}, "match pattern"),
        ({"chat_template_kwargs": {"a": [1]}}, "valid"),
        ({"max_pixels": 10, "min_pixels": 11}, "min_pixels must not be above max_pixels"),
    ],
)
def test_unusable_formats_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings.model_validate({"steps": 1, "prompts": fields})
    with pytest.raises(ValidationError, match=message):
        EvaluateSettings.model_validate({"prompts": fields})


def test_values_of_template_variables_keep_their_type() -> None:
    given = {"enable_thinking": False, "tries": 3, "share": 0.5, "style": "true"}
    found = PromptFormat(chat_template_kwargs=given).model_dump(mode="json")["chat_template_kwargs"]
    assert [(name, type(value), value) for name, value in found.items()] == [
        (name, type(value), value) for name, value in given.items()
    ]
