"""The setting of accuracy with changed images."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

ImageChange = Literal["blank", "shuffle", "swap"]


def _distinct(changes: tuple[ImageChange, ...]) -> tuple[ImageChange, ...]:
    if len(set(changes)) < len(changes):
        raise ValueError("each change can be named once")
    return changes


ImageChanges = Annotated[
    tuple[ImageChange, ...],
    Field(
        max_length=3,
        description="Also sample answers with changed images, and report their accuracy as accuracy_<change>. blank: a "
        "grey image. shuffle: the image with its 4 x 4 tiles in another order. swap: the image of another prompt. Each "
        "change takes as long as the samples without it.",
    ),
    AfterValidator(_distinct),
]
