"""The lines of a run's event file, as `calibrl_core.report` documents them, checked one by one."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from calibrl.schemas import Reason

Step = Annotated[int, Field(ge=0, lt=2**31)]
Number = float | Literal["NaN", "Infinity", "-Infinity"]


class Line(BaseModel):
    """What every line has."""

    ts: float = Field(ge=0, lt=10**11, description="seconds since 1970, UTC")


class Start(Line):
    type: Literal["start"]
    step: Step
    steps_total: Step


class Metrics(Line):
    type: Literal["metrics"]
    step: Step
    values: dict[str, Number]


class Histogram(Line):
    type: Literal["histogram"]
    step: Step
    name: str
    edges: list[float]
    counts: list[int]


class Group(BaseModel, extra="allow"):
    """A sampled group; what is not needed here is kept as it comes."""

    prompt_id: str
    images: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    completions: list[dict[str, Any]]


class Sample(Line):
    type: Literal["sample"]
    step: Step
    group: Group


class Accuracies(Line):
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


class Checkpoint(Line):
    type: Literal["checkpoint"]
    step: Step
    path: str
    best: bool
    metrics: dict[str, Number]
    removed: list[str]


class Progress(Line):
    type: Literal["progress"]
    step: Step
    steps_total: Step


class Log(Line):
    type: Literal["log"]
    level: Literal["info", "warning"]
    message: str


class Health(Line):
    type: Literal["health"]
    step: Step
    rule: str
    state: Literal["fired", "cleared"]
    message: str
    suggestion: str


class Error(Line):
    type: Literal["error"]
    reason: Literal[
        Reason.CRASHED, Reason.OUT_OF_MEMORY, Reason.NON_FINITE, Reason.BAD_SPEC, Reason.DISK_FULL, Reason.QUOTA
    ]
    message: str


class Finish(Line):
    type: Literal["finish"]
    status: Literal["succeeded", "stopped"]
    step: Step
    result: dict[str, Any]
    reason: Literal[Reason.HEALTH] | None = None
    message: str | None = None


RunEvent = Annotated[
    Start | Metrics | Histogram | Sample | Accuracies | Checkpoint | Progress | Log | Health | Error | Finish,
    Field(discriminator="type"),
]
run_event_adapter: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)
