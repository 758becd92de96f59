"""Input of a reward: one completion, its prompt, the row's columns, and the completions of its group."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, overload


@dataclass(frozen=True)
class RewardInput:
    """A completion to judge. In a worker process `images` are read from files when they are accessed."""

    completion: str
    truth: str
    question: str = ""  # the last message of the user
    images: Sequence[bytes] = field(default=(), repr=False)  # encoded image files, such as PNG
    item: Mapping[str, Any] = field(default_factory=dict)  # the row's columns as JSON values, without images
    group: tuple[
        str, ...
    ] = ()  # all completions of the prompt, this one among them; empty: not known, or not asked for

    def to_json(self, *, with_group: bool) -> str:
        """Return the input as JSON for `from_json`, with the names of its images in place of their bytes."""
        values = {
            "completion": self.completion,
            "question": self.question,
            "images": [image_name(image) for image in self.images],
            "item": self.item,
            "group": self.group if with_group else (),
        }
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, truth: str) -> "RewardInput":
        """Return the input in a worker process, which reads the images from `ImageFiles.folder`."""
        values = json.loads(text)
        return cls(
            completion=values["completion"],
            truth=truth,
            question=values["question"],
            images=ImageFiles(values["images"]),
            item=values["item"],
            group=tuple(values["group"]),
        )


class ImageFiles(Sequence[bytes]):
    """Images in files, each read when it is accessed."""

    folder: ClassVar[Path] = Path()  # a worker process sets it at its start

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        """Return the bytes of an image, or a part of the images.

        Raises:
            OSError: the file cannot be read.
        """
        names = self._names[index]
        return (self.folder / names).read_bytes() if isinstance(names, str) else ImageFiles(names)


@lru_cache(maxsize=64)  # the completions of a group share their images
def image_name(image: bytes) -> str:
    """Return the name of an image in JSON and as a file: a digest of its bytes."""
    return sha256(image).hexdigest()
