"""Settings that name a dataset, and the example that every reader yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, ValidationInfo, WithJsonSchema, field_validator

from calibrl_core.settings.base import StrictSettings, one_of
from calibrl_core.verifiers.reward_input import RewardInput

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


WEIGHT = Field(
    1.0,
    gt=0,
    le=100,
    description="Occurrences of each row per epoch of training. 2.5: two of each row, and a third one of every second "
    "row, which the seed of the run chooses.",
)


ExpertStyle = Literal["mixed", "terse", "wordy", "wrong", "other_row"]


class BuiltinData(StrictSettings):
    """A dataset that the package generates."""

    builtin: Literal["digits", "geometry"] = Field(
        description="digits: pairs of handwritten digits, with a question about their sum. geometry: drawn figures "
        "with labelled angles and lengths, with a question about one of them."
    )
    split: Split = Field(
        "train",
        description="Part of the dataset. Both datasets have train, validation and test, which share no source "
        "digit and no figure with the same numbers. digits, drawn as in training: test-small-sums (0 to "
        "9), test-large-sums (10 to 18), test-same-digit (both digits equal). digits, drawn otherwise: "
        "test-noise, test-rotation (each digit turned by 15 to 30 degrees), test-three-digits, "
        "test-difference. geometry: test-hard (two steps of reasoning).",
    )
    experts: ExpertStyle = Field(
        "mixed",
        description="Style of the experts. terse: all in the style of the warm-up. wordy: all in other words. mixed: "
        "every second one in other words. For controls: wrong, terse with a wrong answer; other_row, the terse expert "
        "of the next row.",
    )
    rows: int | None = Field(None, ge=1, description="Use only the first N rows. None: all.")
    weight: float = WEIGHT

    @field_validator("split")
    @classmethod
    def _known(cls, split: Split, info: ValidationInfo) -> Split:
        splits = SPLITS.get(info.data.get("builtin", ""), (split,))
        if split not in splits:
            raise ValueError(f"{info.data['builtin']} has no such split; choose one of {', '.join(splits)}")
        return split

    @property
    def name(self) -> str:
        """Return the name of this dataset in results."""
        return self.split if self.builtin == "digits" else f"{self.builtin}-{self.split}"

    @property
    def row_count(self) -> int:
        """Return the number of rows that are used."""
        of_split = {"train": 4096 if self.builtin == "digits" else 2048, "validation": 128}.get(self.split, 256)
        return min(of_split, self.rows or of_split)


AUTO = "auto"


def _known_format(name: str) -> str:
    from calibrl_core.data.formats import NAMES  # its modules need this one

    if name not in (AUTO, *NAMES):
        raise ValueError(f"must be one of {', '.join((AUTO, *NAMES))}")
    return name


def _describe_formats(schema: dict[str, Any]) -> None:
    from calibrl_core.data.formats import NAMES

    schema["enum"] = [AUTO, *NAMES]


FormatName = Annotated[str, AfterValidator(_known_format), WithJsonSchema({"type": "string"})]
FORMAT = Field(
    AUTO,
    json_schema_extra=_describe_formats,
    description="Row format, as the data reference names it. auto: the first format that the columns fit.",
)
ColumnRole = Literal["question", "images", "answer", "expert"]


class Columns(StrictSettings):
    """Names of columns. Each name replaces the column that the format of the rows would read for this purpose; the
    other columns stay those of the format."""

    question: str = Field(
        "question",
        max_length=200,
        description="Column with the text of the question. <image> marks the position of an image.",
    )
    images: str = Field(
        "images",
        max_length=200,
        description="Column with a path, base64 text or bytes, or a list of them. The name `image` is also recognised.",
    )
    answer: str = Field("answer", max_length=200, description="Column with the verifiable answer, as text or a number.")
    expert: str = Field("expert", max_length=200, description="Column with the expert completion. It can be absent.")

    def named(self, role: ColumnRole) -> str | None:
        """Return the column that the user names for a role, or None."""
        name: str = getattr(self, role)
        return None if name == type(self).model_fields[role].default else name


class FileData(StrictSettings):
    """Rows of a JSON or Parquet file, or of all files of a folder. Image paths are relative to the folder of the file,
    or to that folder, and must stay in it.

    The columns decide the format; the data reference lists all formats.
    """

    path: str = Field(
        min_length=1,
        max_length=1024,
        description="Path of a file that the worker can read: .parquet, .jsonl or .json (also .gz or .zst), or of a "
        "folder of such files.",
    )
    columns: Columns = Field(default_factory=Columns)
    format: FormatName = FORMAT
    rows: int | None = Field(None, ge=1, description="Use only the first N rows. None: all.")
    weight: float = WEIGHT
    title: str | None = Field(
        None, min_length=1, max_length=200, description="Name in results and messages. None: the name of the file."
    )
    image_files: bool = Field(
        True, description="False: refuse paths of images, so that the rows must contain their images."
    )

    @property
    def name(self) -> str:
        """Return the name of this dataset in results."""
        from calibrl_core.data.shards import bare_name  # it needs this module

        return self.title or bare_name(Path(self.path))

    @property
    def label(self) -> str:
        """Return the name of this dataset in messages."""
        return self.title or self.path


class HubSource(StrictSettings):
    """Location of a dataset on the Hugging Face hub."""

    hub: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        max_length=200,
        description="Name of a dataset on the Hugging Face hub, such as hiyouga/geometry3k.",
    )
    config: str | None = Field(
        None,
        pattern=r"^\w[\w.-]*$",
        max_length=100,
        description="Configuration (subset). None: the only or default one.",
    )
    split: str = Field("train", pattern=r"^\w[\w.-]*$", max_length=100, description="Split of the dataset.")
    revision: str | None = Field(None, min_length=1, max_length=100, description="Branch, tag or commit. None: latest.")
    columns: Columns = Field(default_factory=Columns)
    format: FormatName = FORMAT

    @property
    def label(self) -> str:
        """Return the name of this dataset in messages."""
        return f"{self.hub} ({', '.join(part for part in (self.config, self.split) if part)})"


class HubData(HubSource):
    """A dataset of the Hugging Face hub, loaded by the worker through `datasets` without running code of the
    dataset."""

    rows: int | None = Field(None, ge=1, description="Use only the first N rows. None: all.")
    weight: float = WEIGHT

    @property
    def name(self) -> str:
        """Return the name of this dataset in results."""
        return "-".join(part for part in (Path(self.hub).name, self.config, self.split) if part)


DataSource = Annotated[
    Annotated[BuiltinData, Tag("builtin")] | Annotated[FileData, Tag("path")] | Annotated[HubData, Tag("hub")],
    one_of("builtin", "path", "hub"),
]


MOST_SOURCES = 64  # of a mixture
SourceList = Annotated[tuple[DataSource, ...], Field(min_length=1, max_length=MOST_SOURCES)]
TrainingData = Annotated[
    Annotated[BuiltinData, Tag("builtin")]
    | Annotated[FileData, Tag("path")]
    | Annotated[HubData, Tag("hub")]
    | Annotated[SourceList, Tag("several")],
    one_of("builtin", "path", "hub", several="several"),
]


def weighted_rows(rows: int, weight: float) -> int:
    """Return how many rows an epoch takes from a source with this weight."""
    return int(weight) * rows + round((weight - int(weight)) * rows)


def check_weight(field: str, weight: float) -> None:
    """Check that a source has no weight where each row is used once.

    Raises:
        ValueError: it has one.
    """
    if weight != 1:
        raise ValueError(f"{field}.weight: only training data has weights; remove it")


def distinct_names(data: Sequence[DataSource]) -> None:
    """Check the names of an evaluation's datasets.

    Raises:
        ValueError: two datasets have the same name.
    """
    names = [source.name for source in data]
    if len(set(names)) < len(names):
        raise ValueError(f"data: two entries share a name ({', '.join(names)}); results are kept by name")


Curriculum = Literal["none", "pass_ratio", "measured"]  # what sorts an epoch from easy to hard
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """A message that precedes the question. An `<image>` in its text marks the position of the next image of the
    example."""

    role: Role
    text: str


@dataclass(frozen=True)
class Example:
    """One prompt with its verifiable answer."""

    id: str
    question: str  # last user message; an <image> marks the position of the next image
    answer: str
    images: Sequence[bytes] = field(default=(), repr=False)  # encoded images, such as PNG; those of files: StoredImages
    expert: str | None = None
    earlier: tuple[Turn, ...] = ()  # such as a system message
    data_source: str | None = None  # `data_source` of the row, for results per source
    pass_ratio: float | None = None  # 0 to 1: share of right answers of a reference model
    asks_for_answer: bool = True  # False: leave the prompt unchanged, without the request for an <answer>
    item: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)  # the row's columns that rewards see


def completed(examples: Sequence[Example], texts: Sequence[str]) -> list[RewardInput]:
    """Return what a reward sees of each completion, with images as a viewer shows them.

    texts: groups of equal size, one per example, in order.
    """
    from calibrl_core.data.image_decoding import viewed_image  # which raises this module's error

    size = len(texts) // max(1, len(examples))
    groups = [tuple(texts[index * size : (index + 1) * size]) for index in range(len(examples))]
    return [
        RewardInput(text, example.answer, example.question, images, example.item, group)
        for example, group in zip(examples, groups, strict=True)
        for images in [tuple(map(viewed_image, example.images))]
        for text in group
    ]


class DataError(ValueError):
    """An unusable dataset. The message names each wrong file and row, and the fix."""
