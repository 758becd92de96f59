"""A stand-in for the queue and the database: jobs in memory, with what the steps of a study ask of them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from calibrl.schemas import (
    Job,
    JobStatus,
    JobSummary,
    MetricRow,
    Reason,
    RecordedRun,
    SplitAccuracies,
    StudyProgress,
    StudySpec,
    job_spec_adapter,
)
from calibrl.schemas.recorded_runs import RecordedAccuracies, RecordedJob
from calibrl.schemas.study_reports import StudyReport
from jobs.errors import QuotaExceeded
from jobs.studies.curves import curve, last_means
from jobs.studies.expansion import DIGEST, NO_POINTS, Points, StudyJob, expand
from jobs.studies.expansion import STUDY as STUDY_LABEL
from jobs.studies.looks import arms_to_stop
from jobs.studies.measurements import Measurements, Trained
from jobs.studies.report import build_report
from jobs.studies.situation import Situation
from jobs.studies.state import BROKEN, retried
from jobs.studies.stepping import step

NO_ACCURACIES: Mapping[str, list[float]] = {}
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STUDY: dict[str, Any] = {
    "name": "slopes",
    "base": {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "calibrl", "mini_batches": 1},
        "prompts_per_step": 8,
        "steps": 3,
    },
    "arms": {"a": {}, "b": {"optimizer.lr": 1e-4}},
    "seeds": [0, 1],
    "evaluation": {"data": [{"builtin": "digits", "split": "test"}]},
}


class StudyJobs:
    """Jobs that end when a test says so. `room`: number of jobs that the project accepts."""

    def __init__(self, room: int | None = None) -> None:
        self.jobs_by_id: dict[UUID, Job] = {}
        self.room = room
        self.values: dict[UUID, dict[str, list[float]]] = {}  # accuracies of evaluations by split
        self.rows: dict[UUID, list[MetricRow]] = {}
        self.prompts: dict[UUID, list[str]] = {}

    # ---- The queue

    def adopt(self, jobs: Sequence[StudyJob]) -> dict[str, JobSummary]:
        digests = {job.digest for job in jobs}
        open_ones = [job for job in self.jobs_by_id.values() if job.status not in BROKEN]
        found = {(job.labels[DIGEST], job.project): job for job in open_ones if job.labels[DIGEST] in digests}
        project = jobs[0].spec.get("project", "default")
        return {digest: job for (digest, place), job in found.items() if place == project}

    def submit(self, job: StudyJob, needs: UUID | None) -> JobSummary:
        spec = job.spec_from(needs)
        if self.room is not None and len(self.jobs_by_id) >= self.room:
            raise QuotaExceeded("the project has reached its limit")
        sources = [spec["model"]] if "model" in spec else spec["models"]
        before = [UUID(source["from_job"]) for source in sources if "from_job" in source]
        assert before == ([needs] if needs else []) and all(id in self.jobs_by_id for id in before)
        created = BEGAN + timedelta(seconds=len(self.jobs_by_id))
        added = Job(
            id=uuid4(),
            name=spec["name"],
            kind=spec["kind"],
            project=spec.get("project", "default"),
            user="user",
            priority="normal",
            labels=spec["labels"],
            gpus=0,
            status=JobStatus.WAITING if before else JobStatus.QUEUED,
            reason=None,
            message=None,
            step=0,
            steps_total=None,
            attempt=0,
            depends_on=before,
            created_at=created,
            started_at=None,
            finished_at=None,
            spec=job_spec_adapter.validate_python(spec).model_dump(mode="json"),
            result=None,
        )
        self.jobs_by_id[added.id] = added
        return added

    def retry(self, job: JobSummary, *, count: bool) -> JobSummary:
        labels = self.jobs_by_id[job.id].labels
        labels = labels | ({"study-retries": str(retried(job) + 1)} if count else {})
        return self.change(job.id, status=JobStatus.QUEUED, reason=None, finished_at=None, labels=labels)

    # ---- Results

    def splits(self, evaluation: UUID) -> dict[str, SplitAccuracies]:
        return {
            split: SplitAccuracies(
                model_index=0, split=split, prompts=self.prompts.get(evaluation) or digests(values), values=values
            )
            for split, values in self.values[evaluation].items()
        }

    def trained(self, training: UUID, names: Sequence[str]) -> Trained:
        rows = [(row.step, row.values) for row in self.rows.get(training, [])]
        return Trained(curve(rows, self.jobs_by_id[training].spec), last_means(rows, names))

    # ---- A study

    def situation(self, study: StudySpec, points: Points = NO_POINTS) -> Situation:
        """The situation of a study, without knowledge of earlier steps."""
        expansion = expand(study, points)
        own = [job for job in self.jobs_by_id.values() if job.labels[STUDY_LABEL] == study.name]
        known: dict[str, JobSummary] = {
            job.labels[DIGEST]: job
            for job in own
            if job.project == expansion.project and job.labels[DIGEST] in expansion.by_digest
        }
        return Situation(study, expansion, known)

    def step(self, study: StudySpec, points: Points = NO_POINTS) -> StudyProgress:
        return step(self.situation(study, points), self, partial(arms_to_stop, Measurements(self.splits)))

    def report(self, study: StudySpec) -> StudyReport:
        return build_report(self.situation(study), Measurements(self.splits), self.trained)

    # ---- What a test does

    def change(self, id: UUID, **changes: Any) -> Job:
        self.jobs_by_id[id] = self.jobs_by_id[id].model_copy(update=changes)
        return self.jobs_by_id[id]

    def named(self, name: str) -> Job:
        """Return the job whose name ends with this text."""
        (found,) = [job for job in self.jobs_by_id.values() if job.name.endswith(name)]
        return found

    def end(self, name: str, *, hours: float = 1.0, reason: Reason | None = None) -> Job:
        """End a job; with a reason it fails."""
        status = JobStatus.FAILED if reason else JobStatus.SUCCEEDED
        ended = BEGAN + timedelta(hours=hours)
        return self.change(
            self.named(name).id,
            status=status,
            reason=reason,
            started_at=BEGAN,
            finished_at=ended,
            step=3,
            steps_total=3,
        )

    def end_open(self, accuracies: Mapping[str, list[float]] = NO_ACCURACIES) -> None:
        """End all open jobs. `accuracies`: of the evaluations, by arm."""
        for job in [job for job in self.jobs_by_id.values() if not job.status.final]:
            self.end(job.name)
            if job.kind == "evaluate":
                self.values[job.id] = {"test": accuracies.get(job.labels["study-arm"], [0.0, 1.0])}

    def names(self) -> list[str]:
        return [job.name for job in self.jobs_by_id.values()]


def digests(values: list[float]) -> list[str]:
    """Return digests of as many prompts as there are values."""
    return [f"{number:016x}" for number in range(len(values))]


def recorded_run() -> dict[str, Any]:
    """A finished run of a study as JSON."""
    jobs = StudyJobs()
    study = StudySpec.model_validate(STUDY | {"seeds": [0]})
    jobs.step(study)
    jobs.end_open()
    training, evaluation = (jobs.named(f"a seed 0 {part}") for part in ("training", "evaluation"))
    run = RecordedRun(
        training=RecordedJob.model_validate(training),
        evaluation=RecordedJob.model_validate(evaluation),
        splits=[RecordedAccuracies.model_validate(one) for one in jobs.splits(evaluation.id).values()],
        curve=[],
        metrics={},
        origin="CalibRL 0",
    )
    return run.model_dump(mode="json")
