"""What a run trains and is tested on: the settings that name a data set, and the example that every reader yields."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag

from calibrl_core.closed import Closed, one_of

Split = Literal["train", "validation", "test", "test-noise"]


class BuiltinData(Closed):
    """A data set that the package makes itself."""

    builtin: Literal["digits"] = Field(description="digits: pairs of handwritten digits, 'what is their sum?'")
    split: Split = Field("train", description="which part; the parts share no source digit")
    experts: Literal["mixed", "terse"] = Field(
        "mixed", description="terse: every expert in the warm-up's own style; mixed: every other one in other words"
    )
    rows: int | None = Field(None, ge=1, description="only the first rows; None: all")

    @property
    def name(self) -> str:
        return self.split


class Columns(Closed):
    """Which column of a file holds what."""

    question: str = Field("question", description="the question's text; <image> says where an image stands")
    images: str = Field("images", description="a path, base64 text or bytes, or a list of them")
    answer: str = Field("answer", description="the verifiable answer, as text or a number")
    expert: str = Field("expert", description="an expert's completion; may be absent")


class FileData(Closed):
    """Rows of a `.jsonl` or `.parquet` file. Image paths are relative to the file and must stay in its folder."""

    path: str = Field(min_length=1, max_length=1024, description="a .jsonl or .parquet file that the worker can read")
    columns: Columns = Field(default_factory=Columns)
    rows: int | None = Field(None, ge=1, description="only the first rows; None: all")

    @property
    def name(self) -> str:
        return Path(self.path).stem


DataSource = Annotated[
    Annotated[BuiltinData, Tag("builtin")] | Annotated[FileData, Tag("path")], one_of("builtin", "path")
]


@dataclass(frozen=True)
class Example:
    """One prompt with its verifiable answer."""

    id: str
    question: str
    answer: str
    images: tuple[bytes, ...] = field(default=(), repr=False)  # encoded image files, such as PNG
    expert: str | None = None


class DataError(ValueError):
    """A data set that can't be used; the message names every file and row at fault and what would mend it."""
