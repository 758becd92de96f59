"""Tags of images in the texts of rows: each is replaced by `<image>`, in the order of the images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from calibrl_core.data.schema import DataError

TAG = "<image>"
# Written by datasets and by chat templates. A row whose text has one must have images.
_BORDERS = (
    r"(?:<\|(?:vision_start|begin_of_image|image_start)\|>\s*|<im_start>\s*)?",
    r"(?:\s*<\|(?:vision_end|end_of_image|image_end)\|>|\s*<im_end>)?",
)
_PADS = (  # one image with one or many placeholders between its borders
    r"<\|vision_start\|>\s*(?:<\|image_pad\|>\s*)+<\|vision_end\|>",
    r"<\|begin_of_image\|>\s*(?:<\|image\|>\s*)+<\|end_of_image\|>",
    r"<\|media_start\|>image<\|media_content\|>(?:<\|media_pad\|>)+<\|media_end\|>",
    r"<img>\s*(?:<IMG_CONTEXT>\s*)+</img>",
    r"<(?:start_of_image|boi)>(?:\s*<image_soft_token>)*(?:\s*<(?:end_of_image|eoi)>)?",
    r"<Image>\s*<ImageHere>\s*</Image>",
    r"\(<image>\./</image>\)",
)
_PLACEHOLDERS = (
    r"<\|?image[ _:#-]{0,2}(?P<number>\d{1,4})\|?>(?:\s*</image>)?",
    r"<\|?img[ _:#-]{0,2}(?P<img_number>\d{1,4})\|?>",
    r"<\|?image ?/?\|?>(?:\s*</image>)?",
    r"<\|?(?:image|img|media)_?(?:pad|placeholder|token)\|?>",
    r"<ImageHere>|<IMG_CONTEXT>|<image_soft_token>",
)
_MARKUP = r"<img\b[^<>]{0,1000}>(?:[^<>]{0,1000}</img>)?|\[IMG\]|\[IMAGE\]"  # can also be a part of a question
_FORMS = f"{'|'.join(_PADS)}|{_BORDERS[0]}(?:{'|'.join(_PLACEHOLDERS)}){_BORDERS[1]}"
_SURE = re.compile(rf"(?=[<(])(?:{_FORMS})", re.IGNORECASE)  # the first character alone saves most of the time
_MARKUP_TAG = re.compile(_MARKUP, re.IGNORECASE)
_WORDS = ("image", "img", "media", "boi")  # each tag has one
MOST_TAGS, MOST_ANGLES = 10_000, 200_000  # of a text; each `<` can begin a tag


def has_tag(text: str) -> bool:
    """Return if a text has a tag that can be nothing else."""
    return bool(_tags(_SURE, text))


def place_images(texts: Sequence[str], images: Sequence[bytes]) -> tuple[list[str], tuple[bytes, ...]]:
    """Return the texts of a row with every tag as `<image>`, and the images in the order of the tags.

    Tags with numbers, from 1 or from 0, are for the images of these numbers, and a number that occurs twice shows its
    image twice. Tags without numbers are for the images in order. Without any tag nothing changes.

    Raises:
        DataError: tags and images do not correspond.
    """
    found = [_tags(_SURE, text) for text in texts]
    if images and not any(found):
        found = [_tags(_MARKUP_TAG, text) for text in texts]
    tags = [tag for of_text in found for tag in of_text]
    if not tags:
        return list(texts), tuple(images)
    order = _order([_number(tag) for tag in tags], len(images))
    return [*map(_replaced, texts, found)], tuple(images[place] for place in order)


def _tags(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Return the tags of a text. Most texts have no word of a tag; a search for words takes a tenth of the time.

    Raises:
        DataError: there are too many.
    """
    folded = text.lower()
    if not any(word in folded for word in _WORDS):
        return []
    if text.count("<") > MOST_ANGLES:
        raise DataError(f"a text has more than {MOST_ANGLES} `<`, each of which can begin an image tag: shorten it")
    found = list(islice(pattern.finditer(text), MOST_TAGS + 1))
    if len(found) > MOST_TAGS:
        raise DataError(f"a text has more than {MOST_TAGS} image tags: remove some")
    return found


def _replaced(text: str, tags: Sequence[re.Match[str]]) -> str:
    ends = [0, *(tag.end() for tag in tags)]
    starts = [*(tag.start() for tag in tags), len(text)]
    return TAG.join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _number(tag: re.Match[str]) -> int | None:
    named = tag.groupdict()
    number = named.get("number") or named.get("img_number")
    return None if number is None else int(number)


def _order(numbers: Sequence[int | None], images: int) -> Sequence[int]:
    """Return for each tag the place of its image, from 0."""
    numbered = [number for number in numbers if number is not None]
    if not numbered or not images:
        if len(numbers) != images:
            remedy = "add the missing images or remove tags"
            if len(numbers) < images:
                remedy = "give each image a tag, or remove all tags: then all images come before the question"
            raise DataError(f"the prompt has {len(numbers)} <image> tags, but the row has {images} images: {remedy}")
        return range(images)
    if len(numbered) < len(numbers):
        raise DataError("the prompt has image tags with numbers and others without: number all of them or none")
    first = min([1, *numbered])
    places = [number - first for number in numbered]
    if max(places) >= images:
        raise DataError(f"the prompt has a tag for image {max(numbered)}, but the row has {images} images")
    if missing := [place + first for place in range(images) if place not in places]:
        raise DataError(
            f"the prompt has tags with numbers, but none for image {', '.join(map(str, missing[:10]))} of {images}: "
            "add the tags or remove the images"
        )
    return places
