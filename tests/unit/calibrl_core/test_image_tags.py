"""Tags of images: each is for the image that a reader would take."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from calibrl_core.data import load
from calibrl_core.data.image_tags import place_images
from calibrl_core.data.prompts import PromptFormat, messages
from calibrl_core.data.schema import DataError, FileData

A, B, C = (b"A", b"B", b"C")


def placed(text: str, *images: bytes) -> tuple[str, str]:
    """Return the text with all tags as `<image>`, and the images in order."""
    (text,), shown = place_images([text], images)
    return text, b"".join(shown).decode()


@pytest.mark.parametrize(
    "tag",
    [
        "<image>",
        "<Image>",
        "<IMAGE>",
        "<image/>",
        "<image />",
        "<image></image>",
        "<|image|>",
        "<image 1>",
        "<image_1>",
        "<image1>",
        "<image-1>",
        "<image_0>",
        "<image #1>",
        "<|image_1|>",
        "<img1>",
        "<img_1>",
        "<|image_pad|>",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>",
        "<|vision_start|><image><|vision_end|>",
        "<|begin_of_image|><|image|><|end_of_image|>",
        "<|media_start|>image<|media_content|><|media_pad|><|media_end|>",
        "<start_of_image>",
        "<start_of_image><image_soft_token><image_soft_token><end_of_image>",
        "<image_soft_token>",
        "<im_start><image><im_end>",
        "<Image><ImageHere></Image>",
        "<ImageHere>",
        "<image_placeholder>",
        "<|IMAGE_PLACEHOLDER|>",
        "<image_pad>",
        "<|imgpad|>",
        "<IMG_CONTEXT>",
        "<img><IMG_CONTEXT></img>",
        "(<image>./</image>)",
        "<img>",
        "<img/>",
        '<img src="figures/1.png" alt="a square">',
        "<img>figures/1.png</img>",
        "[IMG]",
        "[image]",
    ],
)
def test_each_kind_of_tag_is_for_the_image(tag: str) -> None:
    assert placed(f"See {tag}, then count.", A) == ("See <image>, then count.", "A")


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("<image> and <image>", "AB"),
        ("<image 2> and <image 1>", "BA"),
        ("<image_1> and <image_0>", "BA"),
        ("<|image_2|><|image_1|>", "BA"),
        ("<image 1>, <image 2>; is <image 1> larger?", "ABA"),
        ("<|vision_start|><|image_pad|><|vision_end|><image>", "AB"),
        ("no tag", "AB"),
    ],
)
def test_images_follow_the_numbers_of_their_tags(text: str, order: str) -> None:
    assert placed(text, A, B)[1] == order


def test_numbers_count_through_all_messages() -> None:
    texts, images = place_images(["First <image 2>.", "Then <image 1>?"], [A, B])
    assert (texts, images) == (["First <image>.", "Then <image>?"], (B, A))


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        (
            "Picture 1: <image>",
            (A, B),
            "1 <image> tags, but the row has 2 images: give each image a tag, or remove all",
        ),
        ("<image><image>", (A,), "2 <image> tags, but the row has 1 images: add the missing images"),
        ("<image 1>", (), "1 <image> tags, but the row has 0 images"),
        ("<|image_pad|>", (), "1 <image> tags, but the row has 0 images"),
        ("<image 1> <image 3>", (A, B), "a tag for image 3, but the row has 2 images"),
        ("<image 1> <image 3>", (A, B, C), "none for image 2 of 3"),
        ("<image_0> <image_0>", (A, B), "none for image 1 of 2"),
        ("<image 1> <image>", (A, B), "with numbers and others without"),
        ("<img> <img>", (A,), "2 <image> tags, but the row has 1 images"),
    ],
)
def test_tags_and_images_that_differ_are_refused(text: str, images: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        placed(text, *images)


@pytest.mark.parametrize("text", ["What does <img> do?", "Is [IMG] a tag?", "Use <images> or <imagery>", "a < image >"])
def test_markup_in_a_question_without_images_stays(text: str) -> None:
    assert placed(text) == (text, "")


def test_markup_beside_a_tag_stays() -> None:
    assert placed("<image>Which attribute does <img> need?", A)[0] == "<image>Which attribute does <img> need?"


def png(width: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (width, 4)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_row_shows_its_images_where_its_tags_are(tmp_path: Path) -> None:
    row = {"question": "Is <image 2> as wide as <image 1>?", "images": [png(5), png(7)], "answer": "no"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    (example,) = load(FileData(path=str(tmp_path / "x.jsonl")))
    parts: list[Any] = [part.get("text", "IMAGE") for part in messages(example)[-1]["content"]]
    assert parts[:-1] == ["Is ", "IMAGE", "as wide as ", "IMAGE", "?"]
    assert [Image.open(io.BytesIO(one)).width for one in example.images] == [7, 5]


def test_settings_of_prompts_hold_no_tag() -> None:
    with pytest.raises(ValidationError, match="must not contain <image>"):
        PromptFormat(instruction="Look at <|image_pad|>.")


@pytest.mark.parametrize(("tag", "count"), [("<image>", 10_001), ("<img ", 200_001)])
def test_very_many_tags_are_refused(tag: str, count: int) -> None:
    with pytest.raises(DataError, match=f"a text has more than {count - 1} "):
        placed(tag * count, A)
