"""Schema of the lines of a run's event file, documented in `calibrl_core.report`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from calibrl.schemas import Reason

Step = Annotated[int, Field(ge=0, lt=2**31)]
Number = float | Literal["NaN", "Infinity", "-Infinity"]


class EventLine(BaseModel):
    """Fields that every line has."""

    ts: float = Field(ge=0, lt=10**11, description="seconds since 1970, UTC")


class StartLine(EventLine):
    """The training loop begins. `step`: number of steps that are already done, above 0 after a resume. `record`: what
    the run runs on."""

    type: Literal["start"]
    step: Step
    steps_total: Step
    record: dict[str, Any] | None = None


class CheckedLine(EventLine):
    """A loaded model computes what transformers computes: largest difference of log-probabilities in nats, its limit,
    and when it was measured, in seconds since 1970 (UTC)."""

    type: Literal["checked"]
    model_index: Annotated[int, Field(ge=0, lt=2**31)]
    difference: Annotated[float, Field(ge=0)]
    limit: float
    measured_at: float = Field(ge=0, lt=10**11)


class MetricsLine(EventLine):
    """Values of metrics at a step, by metric name."""

    type: Literal["metrics"]
    step: Step
    values: dict[str, Number]


class HistogramLine(EventLine):
    """Histogram of a token quantity at a step: `counts` has one item fewer than `edges`."""

    type: Literal["histogram"]
    step: Step
    name: str
    edges: list[float]
    counts: list[int]


class Group(BaseModel, extra="allow"):
    """A sampled group; other fields are kept unchanged."""

    prompt_id: str
    images: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    completions: list[dict[str, Any]]


class SampleLine(EventLine):
    """A group of completions that the dashboard shows."""

    type: Literal["sample"]
    step: Step
    group: Group


class VisitsLine(EventLine):
    """Results of the groups of a step. All lists have one item per group; `prompts` are hashes."""

    type: Literal["visits"]
    step: Step
    prompts: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]
    ids: list[str]
    experts: list[bool]
    passed: list[Annotated[int, Field(ge=0, lt=2**31)]]
    sizes: list[Annotated[int, Field(ge=0, lt=2**31)]]
    entropies: list[float | None]
    gaps: list[float | None]
    rareness: list[float | None]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len({len(one) for one in self.lists().values()}) != 1:
            raise ValueError("the lists differ in length")
        return self

    def lists(self) -> dict[str, list[Any]]:
        """Return the lists by name."""
        return self.model_dump(exclude={"ts", "type", "step"})


class AccuraciesLine(EventLine):
    """Accuracy of each prompt of a split under one of the compared models; `prompts` are hashes."""

    type: Literal["accuracies"]
    model_index: Annotated[int, Field(ge=0, lt=2**31)]
    split: Annotated[str, Field(max_length=500)]
    prompts: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]
    values: list[Annotated[float, Field(ge=0, le=1)]]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.prompts) != len(self.values):
            raise ValueError(f"{len(self.prompts)} prompts have {len(self.values)} values")
        return self


class CheckpointLine(EventLine):
    """A checkpoint is complete; `removed` are paths of older checkpoints that it replaces."""

    type: Literal["checkpoint"]
    step: Step
    path: str
    best: bool
    metrics: dict[str, Number]
    removed: list[str]


class ProgressLine(EventLine):
    """Number of steps that are done, between two lines of metrics."""

    type: Literal["progress"]
    step: Step
    steps_total: Step


class LogLine(EventLine):
    """A message for the job's log."""

    type: Literal["log"]
    level: Literal["info", "warning"]
    message: str


class HealthLine(EventLine):
    """A health rule fired or cleared."""

    type: Literal["health"]
    step: Step
    rule: str
    state: Literal["fired", "cleared"]
    message: str
    suggestion: str


class ErrorLine(EventLine):
    """The run failed. The last line of its file."""

    type: Literal["error"]
    reason: Literal[
        Reason.CRASHED, Reason.OUT_OF_MEMORY, Reason.NON_FINITE, Reason.BAD_SPEC, Reason.DISK_FULL, Reason.QUOTA
    ]
    message: str


class FinishLine(EventLine):
    """The run ended without an error: it succeeded, or it stopped as requested. The last line of its file."""

    type: Literal["finish"]
    status: Literal["succeeded", "stopped"]
    step: Step
    result: dict[str, Any]
    reason: Literal[Reason.HEALTH] | None = None
    message: str | None = None


RunEvent = Annotated[
    StartLine
    | CheckedLine
    | MetricsLine
    | HistogramLine
    | SampleLine
    | VisitsLine
    | AccuraciesLine
    | CheckpointLine
    | ProgressLine
    | LogLine
    | HealthLine
    | ErrorLine
    | FinishLine,
    Field(discriminator="type"),
]
run_event_adapter: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)
