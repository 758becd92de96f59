"""Reports of studies: runs, differences between arms, and equal budgets."""

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.status import JobStatus

Budget = Literal["rollouts", "seconds"]


class StudyPoint(Record):
    """Validation of a run: what it had used until then, and its accuracy."""

    step: int
    rollouts: float = Field(description="Rollouts that were sampled until this step.")
    seconds: float = Field(description="Sum of the step times until this step, in seconds.")
    accuracy: float = Field(description="Validation accuracy (0 to 1).")

    def used(self, budget: Budget) -> float:
        """Return what the run had used of a budget."""
        return self.rollouts if budget == "rollouts" else self.seconds


class FinishedRun(Record):
    """Run of an arm with one seed whose jobs have succeeded."""

    arm: str
    seed: int
    digest: str = Field(description="Digest of the settings of the evaluation, with those of the training.")
    recorded: bool = Field(description="True: another service made the run, so its jobs are not here.")


class StudyRun(Record):
    """Run of an arm with one seed: its jobs, and what they measured."""

    arm: str
    seed: int
    digest: str = Field(description="Digest of the settings of the evaluation, with those of the training.")
    warm_up: UUID | None = Field(None, description="Job of the warm-up.")
    training: UUID | None = Field(None, description="Training job. None: it was not submitted.")
    training_status: JobStatus | None = None
    evaluation: UUID | None = Field(None, description="Evaluation job. None: it was not submitted.")
    evaluation_status: JobStatus | None = None
    recorded: bool = Field(False, description="True: another service made the run, so its jobs are not here.")
    accuracies: dict[str, float] = Field(description="Mean accuracy by dataset (0 to 1).")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="Mean of each metric over the last quarter of the steps."
    )
    rank: float | None = Field(
        None,
        description="Rank among the arms with this seed by the primary measure, from 1 (best); equal arms share the "
        "mean. None: an arm has no evaluation with this seed.",
    )
    slot_hours: float = Field(description="Slot-hours of training and evaluation.")
    curve: list[StudyPoint] = Field(description="Validations during the training, by step.")


class StudyArm(Record):
    """An arm: its changes of the base spec and its means over seeds."""

    name: str
    changes: dict[str, Any]
    seeds: list[int] = Field(description="Seeds that are evaluated.")
    accuracies: dict[str, float] = Field(description="Mean accuracy by dataset over seeds and prompts (0 to 1).")
    mean_rank: float | None = Field(None, description="Mean rank over the seeds that all arms have. None: none.")
    slot_hours: float
    stopped_after: int | None = Field(None, description="Seeds after which the arm was stopped. None: it was not.")


class StudyDifference(Record):
    """Difference of two arms: mean accuracy of the second minus that of the first, with its interval."""

    first: str
    second: str
    seeds: list[int] = Field(description="Seeds for which both arms are evaluated.")
    difference: float | None = Field(description="Mean difference. None: fewer than two seeds are evaluated.")
    low: float | None = None
    high: float | None = None
    p_value: float | None = Field(None, description="Two-sided, before Holm's correction.")


class StudyComparison(StudyDifference):
    """Paired comparison of two arms on a dataset, over seeds and prompts."""

    split: str
    prompts: int
    adjusted_p_value: float | None = Field(None, description="p-value after Holm's correction on this dataset.")
    distinguishable: bool = Field(False, description="False: the data shows no difference.")
    needed_seeds: int | None = Field(
        None, description="Seeds with which a difference of this size would be distinguishable. None: seeds do not do."
    )
    needed_prompts: int | None = Field(
        None, description="Prompts with which a difference of this size would be distinguishable. None: they do not do."
    )


class MetricComparison(StudyDifference):
    """Comparison of two arms by a training metric: its mean over the last quarter of the steps. The interval is over
    seeds, without correction."""

    metric: str
    before: float = Field(description="Mean of the first arm over these seeds.")
    after: float = Field(description="Mean of the second arm over these seeds.")


class BudgetComparison(StudyDifference):
    """Comparison of the validation accuracies of two arms at the largest budget that all their runs reached. The
    interval is over seeds, without correction."""

    budget: Budget
    amount: float = Field(description="Rollouts, or seconds of step time.")


class StudyReport(Record):
    """Report of a study."""

    name: str
    primary: str | None = Field(description="Dataset that decides. None: nothing is evaluated yet.")
    baseline: str | None
    confidence: float
    bootstrap_seed: int
    splits: list[str] = Field(description="Datasets of the evaluations, the primary one first.")
    arms: list[StudyArm]
    runs: list[StudyRun]
    comparisons: list[StudyComparison]
    metrics: list[MetricComparison]
    budgets: list[BudgetComparison]
    notes: list[str]
