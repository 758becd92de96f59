"""What a run trains and is tested on: the settings that name a data set, and the example that every reader yields."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator

from calibrl_core.settings_base import Closed, one_of

Split = Literal[
    "train",
    "validation",
    "test",
    "test-small-sums",
    "test-large-sums",
    "test-same-digit",
    "test-noise",
    "test-rotation",
    "test-three-digits",
    "test-difference",
    "test-hard",
]
DIGITS_IN_DOMAIN: tuple[Split, ...] = ("test", "test-small-sums", "test-large-sums", "test-same-digit")
DIGITS_OUT_OF_DOMAIN: tuple[Split, ...] = ("test-noise", "test-rotation", "test-three-digits", "test-difference")
SPLITS: dict[str, tuple[Split, ...]] = {
    "digits": ("train", "validation", *DIGITS_IN_DOMAIN, *DIGITS_OUT_OF_DOMAIN),
    "geometry": ("train", "validation", "test", "test-hard"),
}


class BuiltinData(Closed):
    """A data set that the package makes itself."""

    builtin: Literal["digits", "geometry"] = Field(
        description="digits: pairs of handwritten digits, 'what is their sum?'; geometry: drawn figures with labelled "
        "angles and lengths, one of them asked for"
    )
    split: Split = Field(
        "train",
        description="which part. Both have train, validation and test, which share no source digit and no figure with "
        "the same numbers. digits, drawn as in training: test-small-sums (0 to 9), test-large-sums (10 to 18), "
        "test-same-digit (both digits equal); and otherwise: test-noise, test-rotation (each digit turned by 15 to 30 "
        "degrees), test-three-digits, test-difference. geometry: test-hard (two steps of reasoning)",
    )
    experts: Literal["mixed", "terse"] = Field(
        "mixed", description="terse: every expert in the warm-up's own style; mixed: every other one in other words"
    )
    rows: int | None = Field(None, ge=1, description="only the first rows; None: all")

    @field_validator("split")
    @classmethod
    def _known(cls, split: Split, info: ValidationInfo) -> Split:
        splits = SPLITS.get(info.data.get("builtin", ""), (split,))
        if split not in splits:
            raise ValueError(f"{info.data['builtin']} has no such split; choose one of {', '.join(splits)}")
        return split

    @property
    def name(self) -> str:
        return self.split if self.builtin == "digits" else f"{self.builtin}-{self.split}"

    @property
    def row_count(self) -> int:
        """How many rows are used of it."""
        of_split = {"train": 4096 if self.builtin == "digits" else 2048, "validation": 128}.get(self.split, 256)
        return min(of_split, self.rows or of_split)


class Columns(Closed):
    """Which column holds what. Naming any of them says that the data is of the plain form; in a chat the answer's may
    be named."""

    question: str = Field("question", description="the question's text; <image> says where an image stands")
    images: str = Field("images", description="a path, base64 text or bytes, or a list of them; or named `image`")
    answer: str = Field("answer", description="the verifiable answer, as text or a number")
    expert: str = Field("expert", description="an expert's completion; may be absent")


class FileData(Closed):
    """Rows of a `.jsonl` or `.parquet` file. Image paths are relative to the file and must stay in its folder.

    Its form (plain, verl's, MathVista's, Geometry3K's) is known by its columns: see docs/how-to/data-formats.md.
    """

    path: str = Field(min_length=1, max_length=1024, description="a .jsonl or .parquet file that the worker can read")
    columns: Columns = Field(default_factory=Columns)
    rows: int | None = Field(None, ge=1, description="only the first rows; None: all")
    title: str | None = Field(
        None, min_length=1, max_length=200, description="what results and messages call it; None: the file's name"
    )
    image_files: bool = Field(
        True, description="false: paths of images are refused, and the rows must carry their images"
    )

    @property
    def name(self) -> str:
        return self.title or Path(self.path).stem

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.title or self.path


class HubSource(Closed):
    """Where a data set of the Hugging Face hub is found."""

    hub: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        max_length=200,
        description="name of a data set on the hub, such as hiyouga/geometry3k",
    )
    split: str = Field("train", pattern=r"^\w[\w.-]*$", max_length=100, description="which part of it")
    revision: str | None = Field(None, min_length=1, max_length=100, description="branch, tag or commit; None: newest")
    columns: Columns = Field(default_factory=Columns)


class HubData(HubSource):
    """A data set of the Hugging Face hub, loaded by the worker through `datasets`, which runs no code of it."""

    rows: int | None = Field(None, ge=1, description="only the first rows; None: all")

    @property
    def name(self) -> str:
        return f"{Path(self.hub).name}-{self.split}"

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.hub} ({self.split})"


DataSource = Annotated[
    Annotated[BuiltinData, Tag("builtin")] | Annotated[FileData, Tag("path")] | Annotated[HubData, Tag("hub")],
    one_of("builtin", "path", "hub"),
]


Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """A message that precedes the question. An `<image>` in its text stands for the next of the example's images."""

    role: Role
    text: str


@dataclass(frozen=True)
class Example:
    """One prompt with its verifiable answer."""

    id: str
    question: str  # the last message, which is the user's; an <image> stands for the next of the images
    answer: str
    images: tuple[bytes, ...] = field(default=(), repr=False)  # encoded image files, such as PNG
    expert: str | None = None
    earlier: tuple[Turn, ...] = ()  # such as a system message
    data_source: str | None = None  # what the row's own `data_source` says, for results by source
    pass_ratio: float | None = None  # 0 to 1: how often some model answered it rightly
    asks_for_answer: bool = True  # False: the prompt stays as it is, and nobody is asked for an <answer>


class DataError(ValueError):
    """A data set that can't be used; the message names every file and row at fault and what would mend it."""
