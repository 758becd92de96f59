"""Result of a dry run of a spec."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.queue import WaitReason


class DataFacts(Record):
    """Facts about a dataset, known before training."""

    field: str = Field(description="Field of the spec that names the dataset.")
    name: str
    rows: int | None = Field(description="Number of rows that the job uses. None: only the worker can count them.")
    checked: int = Field(description="Number of rows that were checked.")
    with_expert: int | None = Field(
        description="Number of checked rows that have an expert completion. None: no row was checked."
    )
    with_images: int | None
    row_format: str | None = Field(None, description="Row format of the file. None: no row was checked.")
    unused_columns: list[str] = Field([], description="Columns of the checked rows that have content and are not used.")


class ModelFacts(Record):
    """Facts about a model, known before the job starts."""

    field: str = Field(description="Field of the spec that names the model.")
    name: str
    commit: str | None = Field(description="Commit of a model of the hub. None: another kind of model.")
    download_bytes: int | None = Field(
        description="Bytes that a machine downloads unless it has this commit. None: nothing, or unknown."
    )
    check: str | None = Field(
        description="Result of the newest check at load of this model in a training job of the project. None: the "
        "model was not loaded there yet; each job checks it."
    )


MemoryPhase = Literal["load", "rollout", "reference", "update", "save"]


class MemoryPart(Record):
    """One part of the memory of a process."""

    name: str
    bytes: int
    phases: list[MemoryPhase] = Field(description="Phases of a process in which the memory is used.")
    formula: str


class MemoryPlan(Record):
    """Estimate of the peak memory of each process of a job, in bytes: that of its largest phase."""

    bytes: int
    on: Literal["GPU", "host"]
    host_bytes: int = Field(description="Peak host memory of each process, in bytes.")
    phases: dict[MemoryPhase, int] = Field(description="Memory of each process by phase, in bytes.")
    parameters: int
    trained: int = Field(description="Number of parameters that are trained.")
    parts: list[MemoryPart]
    fits: bool | None = Field(
        description="True: at least one machine has GPUs of this size. None: unknown, because the job runs on the host."
    )
    explanation: str
    remedies: list[str] = Field(
        description="Settings that make the job fit, the cheapest first. All together, if there is no single one."
    )


class QueuePlan(Record):
    """Place that the job would have in the queue."""

    position: int | None
    reason: WaitReason | None = Field(description="Reason for waiting. None: the job would start at once.")
    explanation: str
    estimated_start: datetime | None = Field(description="Estimated start. None: it cannot be estimated.")
    expected_seconds: float | None = Field(
        description="Expected run time in seconds: from recent jobs of the project, or the timeout of the job."
    )
    by_steps: bool = Field(
        False, description="True: the estimate is by the steps of the job. False: by jobs of this kind, of any length."
    )
    slots: int = Field(
        description="Number of GPUs, or 1 for a CPU slot. One hour of running uses this many slot-hours."
    )


class Notice(Record):
    """A warning about a spec that is valid but may be a mistake."""

    field: str
    message: str


class JobPlan(Record):
    """Result of a dry run of a spec."""

    spec: dict[str, Any] = Field(description="Spec with all defaults filled in.")
    models: list[ModelFacts]
    steps: int | None = Field(
        description="Number of steps of a training job. None: only the worker can count the rows; or another job."
    )
    data: list[DataFacts]
    memory: MemoryPlan | None = Field(
        description="Memory estimate. None: the size of the model is unknown to the service."
    )
    queue: QueuePlan
    warnings: list[Notice]
