"""Finished runs of studies, with all that a report reads: they travel between services as files."""

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from calibrl.schemas.base import Label, LabelKey, Slug
from calibrl.schemas.evaluations import SplitAccuracies
from calibrl.schemas.jobs import MAX_LABELS, JobSummary
from calibrl.schemas.status import JobStatus
from calibrl.schemas.study_reports import StudyPoint
from calibrl_core.settings.base import StrictSettings

DIGEST = "study-digest"  # label of a job: its settings, and those of the job that it starts from
MAX_SPLITS = 32
MAX_PROMPTS = 100_000  # of a dataset
MAX_POINTS = 1000
KEPT_POINTS = 200  # of a longer curve, so that the run can be posted
MAX_METRICS = 24
MAX_SLOTS = 100_000  # machines of a job, and GPUs of a machine


class RecordedJob(JobSummary):
    """A job of another service, with limits."""

    name: str = Field(max_length=200)
    project: Slug
    user: str = Field(max_length=200, description="User who submitted the job.")
    labels: dict[LabelKey, Label] = Field(max_length=MAX_LABELS)
    fields: dict[str, Any] = Field({}, max_length=0, description="Empty: a study needs no fields of the spec.")
    message: str | None = Field(max_length=10_000, description="The reason in one sentence.")
    depends_on: list[UUID] = Field(max_length=100)
    machines: int = Field(1, ge=1, le=MAX_SLOTS, description="Number of machines on which the job ran.")
    gpus: int = Field(ge=0, le=MAX_SLOTS, description="Number of GPUs on each machine. 0: one CPU slot on each.")
    alerts: list[Annotated[str, Field(max_length=100)]] = Field(
        [], max_length=100, description="Health rules that had fired when the job ended."
    )
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class RecordedAccuracies(SplitAccuracies):
    """Accuracies of another service, with limits."""

    split: str = Field(max_length=500, description="Name of the dataset.")
    prompts: list[Annotated[str, Field(max_length=100)]] = Field(
        min_length=1, max_length=MAX_PROMPTS, description="Digest of each prompt, in the order of the data."
    )
    values: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        min_length=1, max_length=MAX_PROMPTS, description="Accuracy of each prompt (0 to 1), in that order."
    )

    @model_validator(mode="after")
    def _one_value_per_prompt(self) -> Self:
        if len(self.values) != len(self.prompts):
            raise ValueError(f"values: {len(self.values)} values for {len(self.prompts)} prompts; give one per prompt")
        return self


class RecordedRun(StrictSettings):
    """Finished run of a study: its two jobs and their results."""

    training: RecordedJob
    evaluation: RecordedJob
    splits: list[RecordedAccuracies] = Field(
        min_length=1,
        max_length=MAX_SPLITS,
        description="Accuracy per prompt on each dataset of the evaluation, in the order of its spec.",
    )
    curve: list[StudyPoint] = Field(max_length=MAX_POINTS, description="Validations during the training, by step.")
    metrics: dict[str, float] = Field(
        max_length=MAX_METRICS, description="Mean of each metric of the study over the last quarter of the steps."
    )
    origin: str = Field(max_length=200, description="Version of CalibRL that made the record.")

    @model_validator(mode="after")
    def _is_finished(self) -> Self:
        for name, job in (("training", self.training), ("evaluation", self.evaluation)):
            if job.status is not JobStatus.SUCCEEDED or not job.labels.get(DIGEST):
                raise ValueError(f"{name}: must be a succeeded job of a study, with the label {DIGEST}")
        return self


class RecordedRunPost(StrictSettings):
    """A run to add to a project."""

    project: Slug = "default"
    run: RecordedRun
