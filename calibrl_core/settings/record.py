"""Settings of what a run records beside its curves: checkpoints, samples, measurements."""

from typing import Literal

from pydantic import Field

from calibrl_core.settings.base import StrictSettings


class CheckpointSettings(StrictSettings):
    """Interval and retention of checkpoints."""

    every_steps: int = Field(50, ge=1, description="Steps between checkpoints. The last step always writes one.")
    keep_last: int = Field(2, ge=1, le=100, description="Number of latest checkpoints to keep.")
    keep_best: Literal["validation/accuracy"] | None = Field(
        "validation/accuracy", description="Metric whose best checkpoint is also kept. None: keep none."
    )
    max_gigabytes: float | None = Field(
        None,
        gt=0,
        description="Maximum disk space of the kept checkpoints in units of 10^9 bytes. The oldest are deleted "
        "first, the latest and the best never; if these two need more, the run ends. None: no limit.",
    )

    host_gigabytes: float = Field(
        16,
        ge=0,
        le=10_000,
        description="Host memory for tensors of a checkpoint that wait to be written, in units of 10^9 bytes, beside a "
        "file of 2 GB that is being written. Training goes on meanwhile; if a checkpoint is larger, the step waits "
        "until the rest has room. 0: the step waits until the checkpoint is written.",
    )


class SampleSettings(StrictSettings):
    """Groups that are kept with all contents, for people to read."""

    every_steps: int = Field(
        10, ge=1, description="Steps between samples. The first and the last step are always sampled."
    )
    groups: int = Field(2, ge=0, le=32, description="Groups to keep per sampled step.")
    max_megabytes: float = Field(
        64, gt=0, le=10_000, description="Maximum size in megabytes of the samples that a job keeps."
    )


class DiagnosticsSettings(StrictSettings):
    """Intervals of measurements that take extra passes and change no weight."""

    gradients_every: int | None = Field(
        20,
        ge=1,
        description="Steps between comparisons of the gradients of policy loss and guidance: two passes of one "
        "micro-batch, and memory for a second gradient. Only algorithms with guidance. None: never.",
    )
    experts_every: int | None = Field(
        1,
        ge=1,
        description="Steps between measurements of the experts (family expert/) if the algorithm does not use "
        "experts: one forward pass over the experts of the step. None: never.",
    )
    images_every: int | None = Field(
        20,
        ge=1,
        description="Steps between measurements of how much completions depend on their images (family image/): four "
        "forward passes over up to 8 groups per process, if prompts have images. None: never.",
    )
