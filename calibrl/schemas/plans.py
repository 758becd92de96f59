"""What would become of a spec, were it submitted now."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.queue import WaitReason


class DataFacts(Record):
    """What is known of a data set before it is trained on."""

    field: str = Field(description="where the spec names it")
    name: str
    rows: int | None = Field(description="that are used; None where only the worker can tell")
    checked: int = Field(description="rows that were looked at")
    with_expert: int | None = Field(description="of those that were looked at; None where nothing was")
    with_images: int | None


class MemoryPart(Record):
    """A part of the memory that one process takes."""

    name: str
    bytes: int
    when: Literal["always", "rollout", "update"] = Field(description="rollouts and updates take turns")
    formula: str


class MemoryPlan(Record):
    """An estimate of the memory that each of a job's processes takes at its peak: all that is there always, and the
    larger of what rollouts and updates take."""

    bytes: int
    on: Literal["GPU", "host"]
    parameters: int
    trained: int = Field(description="parameters that are trained")
    parts: list[MemoryPart]
    fits: bool | None = Field(description="whether some machine has GPUs that large; None: of a host nothing is known")
    explanation: str


class QueuePlan(Record):
    """Where the job would stand in the queue."""

    position: int | None
    reason: WaitReason | None = Field(description="None: it would start at once")
    explanation: str
    estimated_start: datetime | None = Field(description="None where it can't be told")
    expected_seconds: float | None = Field(description="of running: as its project's last ones took, or its timeout")
    slots: int = Field(description="GPUs, or the one CPU slot: what each hour costs in slot-hours")


class Notice(Record):
    """Something in a spec that works, but may not be meant."""

    field: str
    message: str


class JobPlan(Record):
    """What would become of a spec."""

    spec: dict[str, Any] = Field(description="the spec with every default filled in")
    data: list[DataFacts]
    memory: MemoryPlan | None = Field(description="None where the model's size can't be told here")
    queue: QueuePlan
    warnings: list[Notice]
