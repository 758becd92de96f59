"""Studies: the description of many runs that are compared, as users write it, and its status and progress."""

from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from math import prod
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, JsonValue, ValidationError, field_validator, model_validator

from calibrl.schemas.base import Record
from calibrl.schemas.fault_texts import fault_text
from calibrl.schemas.spec_paths import check_path
from calibrl.schemas.specs import DataChoice, KnownData, Limits, Resources
from calibrl_core.config import EvaluateSettings
from calibrl_core.data.schema import check_weight, distinct_names
from calibrl_core.settings.base import StrictSettings

MAX_ARMS = 32  # of a study, after its axes are expanded
MAX_SEEDS = 64
MAX_STUDY_RUNS = 512  # arms x seeds
MAX_ARM_NAME = 50  # characters
MAX_FAULTS = 3  # in a message
# Fields that a study sets by itself, each with the field of the study that does.
SET_BY_STUDY = {
    "kind": "every run is a training",
    "name": "name",
    "labels": "base.labels",
    "project": "base.project",
    "priority": "base.priority",
    "depends_on": "base.depends_on",
    "seed": "seeds",
}


def _changeable(path: str) -> str:
    check_path(path)
    if (first := path.partition(".")[0]) in SET_BY_STUDY:
        raise ValueError(f"{path!r} cannot differ between arms; see {SET_BY_STUDY[first]}")
    return path


FieldPath = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_changeable)]
Changes = Annotated[dict[FieldPath, JsonValue], Field(max_length=64)]
StudyName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")]
ArmName = Annotated[str, Field(min_length=1, max_length=30, pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")]
StudyMetric = Annotated[str, Field(min_length=3, max_length=200, pattern=r"^[a-z0-9_]+/[^\s]+$")]
AxisValues = Annotated[tuple[JsonValue, ...], Field(max_length=MAX_ARMS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class WarmUp(StrictSettings):
    """Warm-up: a training whose checkpoint is the model of the runs of all arms."""

    changes: Changes = Field(
        description="Changes of the base spec, by the path of the field. A mapping replaces the whole field."
    )
    checkpoint: Literal["best", "last"] = Field("best", description="Checkpoint of the warm-up from which runs start.")
    each_seed: bool = Field(
        False,
        description="True: one warm-up per seed, with that seed, shared by all arms. False: one warm-up for all runs, "
        "with the seed of the base spec.",
    )


class StudyEvaluation(EvaluateSettings):
    """Evaluation of each run. All evaluations have the same prompts and the same seed of sampling."""

    data: tuple[DataChoice, ...] = Field(
        min_length=1, max_length=32, description="Datasets on which runs are compared."
    )
    checkpoint: Literal["best", "last"] = Field(
        "best",
        description="Checkpoint of each run that is evaluated. best: by checkpoints.keep_best, or the latest if none "
        "is marked.",
    )
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        distinct_names([source for source in self.data if not isinstance(source, KnownData)])
        for index, source in enumerate(self.data):
            check_weight(f"data.{index}", source.weight)
        return self


class StopRule(StrictSettings):
    """Early end of arms that are worse than the baseline, by group-sequential bounds (O'Brien and Fleming, spent as by
    Lan and DeMets). The probability that an arm is stopped although it is not worse stays below (1 - confidence) / 2
    over all looks and arms together."""

    after_seeds: tuple[Annotated[int, Field(ge=2, lt=MAX_SEEDS)], ...] = Field(
        min_length=1,
        max_length=9,
        description="Numbers of evaluated seeds after which the arms are compared, ascending. No run of the seed after "
        "such a look is submitted before the look.",
    )

    @field_validator("after_seeds")
    @classmethod
    def _ascending(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(looks)):
            raise ValueError("must ascend, such as [2, 3]")
        return looks


class AxisRange(StrictSettings):
    """A range of an axis, in which a sampler chooses points."""

    low: float = Field(description="Lowest value.")
    high: float = Field(description="Highest value.")
    log: bool = Field(False, description="Choose on a logarithmic scale.")
    whole: bool = Field(False, description="Choose whole numbers.")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 on a logarithmic scale")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("low and high must be whole numbers, because whole is set")
        return self


class Search(StrictSettings):
    """Choice of points in the ranges of axes, by a sampler of Optuna. Each point of an arm is an arm with all seeds.
    The measure is the mean accuracy on the primary dataset."""

    points: int = Field(ge=1, le=MAX_ARMS, description="Number of points of each arm.")
    sampler: Literal["tpe", "random"] = Field(
        "tpe",
        description="tpe: the tree-structured Parzen estimator, which learns from the points that have ended; its "
        "first ten points are random. random: independent points.",
    )
    at_once: int = Field(
        4,
        ge=1,
        le=MAX_ARMS,
        description="Points of an arm that run at the same time. The fewer, the more a point learns from others.",
    )
    seed: Seed = Field(0, description="Seed of the sampler.")


class StudySpec(StrictSettings):
    """A study: a base spec, arms that change it, and seeds. Each arm runs once per seed, and each run is evaluated on
    the same prompts."""

    name: StudyName = Field(description="Name of the study, and the beginning of the names of its jobs.")
    base: dict[str, JsonValue] = Field(
        max_length=100, description="Training spec that all runs share, as in a job. Its name is unused."
    )
    arms: dict[ArmName, Changes] = Field(
        default_factory=dict,
        max_length=MAX_ARMS,
        description="Arms by name, each with its changes of the base spec by the path of the field, such as "
        "algorithm.guidance_coef. A mapping replaces the whole field. Empty: one arm, base.",
    )
    axes: dict[FieldPath, AxisRange | AxisValues] = Field(
        default_factory=dict,
        max_length=4,
        description="Values of fields by path. Each arm is repeated for every combination of these values. A range, "
        "such as {low: 1.0e-5, high: 1.0e-3, log: true}: a sampler chooses values; see search.",
    )
    search: Search | None = Field(None, description="Choice of points in the ranges of axes. None: no axis is a range.")
    seeds: tuple[Seed, ...] = Field(
        min_length=1, max_length=MAX_SEEDS, description="Seeds of the data order and of sampling. Each arm has all."
    )
    warm_up: WarmUp | None = Field(None, description="Warm-up that the runs start from. None: the model of the spec.")
    evaluation: StudyEvaluation
    primary: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Name of the dataset whose accuracy is the primary measure, as in the results of an evaluation. "
        "None: the first dataset of the evaluation.",
    )
    baseline: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_ARM_NAME,
        description="Arm with which each other arm is compared. None: all pairs of arms are compared.",
    )
    metrics: tuple[StudyMetric, ...] = Field(
        (),
        max_length=24,
        description="Training metrics that are compared beside the accuracies, such as exploration/entropy: the mean "
        "of each over the last quarter of the steps.",
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="Confidence of intervals, and of all verdicts of a dataset together."
    )
    bootstrap_seed: Seed = Field(0, description="Seed of the bootstrap.")
    budget_slot_hours: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Maximum slot-hours of all jobs of the study. A seed whose runs would exceed it is not submitted. "
        "None: no limit.",
    )
    retries: int = Field(
        1, ge=0, le=10, description="Number of times that a job is retried after a crash, a full disk or a lost worker."
    )
    stop: StopRule | None = Field(None, description="Early end of arms that are worse than the baseline. None: none.")

    @field_validator("base")
    @classmethod
    def _is_training(cls, base: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if base.get("kind", "train") != "train":
            raise ValueError(
                "kind: the base of a study is a training; `evaluation` has the settings of the evaluations"
            )
        return base

    @field_validator("axes")
    @classmethod
    def _axes_have_values(cls, axes: dict[str, AxisRange | tuple[Any, ...]]) -> dict[str, AxisRange | tuple[Any, ...]]:
        for path, values in axes.items():
            if not isinstance(values, AxisRange) and not 1 <= len(values) <= MAX_ARMS:
                raise ValueError(f"{path}: give 1 to {MAX_ARMS} values, not {len(values)}")
        return axes

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = [source.name for source in self.evaluation.data if not isinstance(source, KnownData)]
        if self.primary is not None and self.primary not in names and len(names) == len(self.evaluation.data):
            raise ValueError(f"primary: the evaluation has no dataset {self.primary!r}; datasets: {', '.join(names)}")
        ranges = [path for path, axis in self.axes.items() if isinstance(axis, AxisRange)]
        if ranges and self.search is None:
            raise ValueError(f"search: axis {ranges[0]} is a range: give search.points")
        whole = [axis for axis in self.axes.values() if isinstance(axis, AxisRange) and axis.whole]
        combinations = prod(int(axis.high - axis.low) + 1 for axis in whole)
        if self.search is not None and 0 < len(ranges) == len(whole) and combinations < self.search.points:
            raise ValueError(f"search.points: the ranges have only {combinations} points of whole numbers")
        if self.search is not None and not ranges:
            raise ValueError("search: no axis is a range; remove it, or give an axis low and high")
        if self.search is not None and self.stop is not None:
            raise ValueError("stop: arms of a search are not stopped early; remove stop or search")
        if self.stop is not None and self.baseline is None:
            raise ValueError("stop: name the baseline, with which arms are compared")
        if self.stop is not None and self.stop.after_seeds[-1] >= len(self.seeds):
            raise ValueError(f"stop.after_seeds: the study has {len(self.seeds)} seeds; the last look must come before")
        if self.warm_up is not None:
            paths = {"axes": [*self.axes], **{f"arms.{name}": [*changes] for name, changes in self.arms.items()}}
            for place, changed in paths.items():
                if source := next((path for path in changed if _chooses_model(path)), None):
                    raise ValueError(
                        f"{place}: {source}: the checkpoint of the warm-up is the model; remove one of both"
                    )
        return self


def _chooses_model(path: str) -> bool:
    """Return if a change replaces the model, not only one of its options."""
    return path == "model" or path in {f"model.{field}" for field in ("builtin", "path", "hub", "from_job", "seed")}


def faults(error: ValidationError) -> str:
    """Return the first faults of a validation in one line, each with its field."""
    found = error.errors()
    lines = []
    for one in found[:MAX_FAULTS]:
        place = ".".join(str(key) for key in one["loc"] if key != "[key]")
        message = fault_text(one)
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join([*lines, *([f"and {len(found) - MAX_FAULTS} more"] if len(found) > MAX_FAULTS else [])])


class StudyStatus(StrEnum):
    """Status of a study. `failed`: at least one job has failed, or the study cannot continue. `cancelling`: its jobs
    are being cancelled."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Return True if the service does nothing more for the study."""
        return self in (StudyStatus.SUCCEEDED, StudyStatus.FAILED, StudyStatus.CANCELLED)


class StudyProgress(Record):
    """Progress of a study, in jobs."""

    planned: int = Field(0, description="Jobs that should run now or later.")
    succeeded: int = 0
    failed: int = Field(0, description="Jobs that failed or were cancelled for good, and jobs that need one of them.")
    running: int = 0
    waiting: int = 0
    slot_hours: float = Field(0.0, description="Slot-hours of all jobs so far.")
    seconds_left: float | None = Field(
        None, description="Estimated time left in seconds. None: nothing has ended from which it can be estimated."
    )
    stopped: dict[str, int] = Field(
        default_factory=dict, description="Arms that were stopped, with the number of seeds at that look."
    )
    notes: list[str] = Field(default_factory=list, description="Sentences for the reader.")

    @property
    def done(self) -> bool:
        """Return True if nothing is left to run."""
        return self.succeeded + self.failed >= self.planned


class StudySummary(Record):
    """A study in lists, without its description."""

    id: UUID
    name: str
    project: str
    user: str = Field(description="User with whose rights the jobs are submitted: who posted the study last.")
    status: StudyStatus
    message: str | None = Field(description="Why the study ended, if it did not end by itself.")
    progress: StudyProgress = Field(description="Progress at the last step of the service, seconds ago.")
    created_at: datetime
    finished_at: datetime | None


class Study(StudySummary):
    """A study with its description."""

    spec: dict[str, Any] = Field(description="Description as posted, a StudySpec.")
