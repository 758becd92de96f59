"""A stand-in for the client: jobs in memory, with the requests that the runner of a study sends."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from calibrl.client import CalibrlError, Client
from calibrl.schemas import (
    Evaluation,
    EvaluationResult,
    Job,
    JobStatus,
    JobSummary,
    MetricRow,
    Page,
    Reason,
    SplitAccuracies,
    job_spec_adapter,
)

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

    @property
    def client(self) -> Client:
        return cast(Client, self)

    @property
    def url(self) -> str:
        return "http://service"

    def submit(self, spec: Mapping[str, Any]) -> Job:
        if self.room is not None and len(self.jobs_by_id) >= self.room:
            raise CalibrlError("Quota exceeded", status=409, detail="the project has reached its limit")
        sources = [spec["model"]] if "model" in spec else spec["models"]
        needs = [UUID(source["from_job"]) for source in sources if "from_job" in source]
        assert all(id in self.jobs_by_id for id in needs)
        created = BEGAN + timedelta(seconds=len(self.jobs_by_id))
        job = Job(
            id=uuid4(),
            name=spec["name"],
            kind=spec["kind"],
            project=spec.get("project", "default"),
            user="user",
            priority="normal",
            labels=spec["labels"],
            gpus=0,
            status=JobStatus.WAITING if needs else JobStatus.QUEUED,
            reason=None,
            message=None,
            step=0,
            steps_total=None,
            attempt=0,
            depends_on=needs,
            created_at=created,
            started_at=None,
            finished_at=None,
            spec=job_spec_adapter.validate_python(spec).model_dump(mode="json"),
            result=None,
        )
        self.jobs_by_id[job.id] = job
        return job

    def jobs(self, *, project: str, labels: Mapping[str, str], after: UUID | None, limit: int) -> Page[JobSummary]:
        found = [job for job in self.jobs_by_id.values() if job.labels.items() >= labels.items()]
        return Page[JobSummary](data=[job for job in found if job.project == project], has_more=False)

    def job(self, id: UUID) -> Job:
        return self.jobs_by_id[id]

    def edit(self, id: UUID, *, labels: Mapping[str, str]) -> Job:
        return self.change(id, labels=self.jobs_by_id[id].labels | dict(labels))

    def retry(self, id: UUID) -> Job:
        return self.change(id, status=JobStatus.QUEUED, reason=None, finished_at=None)

    def evaluation(self, id: UUID) -> Evaluation:
        shared = {
            "model": "m",
            "model_index": 0,
            "chosen": {},
            "prompts": 1,
            "samples": 1,
            "metrics": {},
            "sources": {},
        }
        results = [EvaluationResult.model_validate({"split": split, **shared}) for split in self.values[id]]
        return Evaluation(job_id=id, results=results, comparisons=[])

    def accuracies(self, id: UUID) -> list[SplitAccuracies]:
        return [
            SplitAccuracies(model_index=0, split=split, prompts=self.prompts.get(id) or digests(values), values=values)
            for split, values in sorted(self.values[id].items())
        ]

    def all_metrics(self, id: UUID, names: list[str]) -> list[MetricRow]:
        return self.rows.get(id, [])

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
