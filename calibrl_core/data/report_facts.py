"""Content of a data report: counts, sizes and warnings."""

from pydantic import BaseModel, ConfigDict, Field


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class Spread(_Facts):
    """Sizes of several things, all in the same unit."""

    count: int
    smallest: int
    median: int
    p95: int = Field(description="95th percentile.")
    largest: int


class ImageReport(_Facts):
    """Images of the rows that were read."""

    count: int = 0
    formats: dict[str, int] = Field({}, description="Number of images by file format.")
    converted: dict[str, int] = Field({}, description="Number of images that are converted when used, by the reason.")
    decoded: int = Field(
        0, description="Number of different files whose pixels were compared, with those of the validation data."
    )
    width: Spread | None = Field(None, description="Width in pixels, upright.")
    height: Spread | None = Field(None, description="Height in pixels, upright.")


class ReportWarning(_Facts):
    """Rows that harm a training job."""

    kind: str
    message: str = Field(description="One sentence with the remedy.")
    count: int = Field(description="Number of rows.")
    rows: list[int] = Field(description="The first of these rows, counted from 1.")


class DataReport(_Facts):
    """Content of a data source. Rows beyond the limits and empty columns do not count."""

    name: str
    rows: int = Field(description="Number of rows that were read.")
    complete: bool = Field(description="False: the source has more rows than were read.")
    invalid: int = Field(description="Number of rows that cannot be used.")
    formats: dict[str, int] = Field(description="Number of valid rows by row format.")
    used_columns: list[str]
    unused_columns: list[str] = Field(description="Columns with content that the format does not use.")
    with_expert: int
    with_images: int
    images: ImageReport
    prompt_characters: Spread | None = Field(description="Question and earlier messages. None: no valid row.")
    expert_characters: Spread | None
    prompt_tokens: Spread | None = Field(
        None,
        description="With images and chat template; in a report of the API without both. None: no model was named.",
    )
    expert_tokens: Spread | None = None
    duplicates: int = Field(description="Number of rows with prompt, answer and expert of an earlier row.")
    contradictions: int = Field(description="Number of rows with the prompt of an earlier row and another answer.")
    near_duplicates: int = Field(description="Number of rows whose text nearly equals that of an earlier row.")
    overlap_prompts: int | None = Field(
        None, description="Number of rows whose prompt is in the validation data. None: no validation data was named."
    )
    overlap_near: int | None = Field(
        None, description="Number of rows whose text nearly equals one of the validation data. None: as above."
    )
    overlap_images: int | None = Field(
        None, description="Number of rows with an image that the validation data has. None: as above."
    )
    truths: dict[str, int] = Field(description="Number of answers by the kind that the verifiers read.")
    unearnable: int = Field(description="Number of rows whose answer no completion can earn.")
    judged_experts: int = Field(description="Number of experts that the rewards judged; their rows can be earned.")
    right_experts: int = Field(description="Number of these that all rewards accept.")
    cut_experts: int | None = Field(
        None, description="Number of experts with more tokens than the limit. None: no model or limit was named."
    )
    pass_ratios: list[int] = Field(
        description="Number of rows by pass ratio, in ten intervals from 0 to 1; empty without any."
    )
    warnings: list[ReportWarning] = Field(description="The most harmful one first.")

    @property
    def sizes(self) -> dict[str, Spread]:
        """Sizes by what they measure, without those of nothing."""
        found = {
            "prompt, characters": self.prompt_characters,
            "prompt, tokens": self.prompt_tokens,
            "expert, characters": self.expert_characters,
            "expert, tokens": self.expert_tokens,
            "image width, pixels": self.images.width,
            "image height, pixels": self.images.height,
        }
        return {name: spread for name, spread in found.items() if spread}
