"""Runs that another service made. Studies of the project use them in place of jobs with the same settings."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from calibrl.schemas import JobSummary, RecordedRun, RecordedRunPost, Role, SplitAccuracies
from calibrl.schemas.recorded_runs import DIGEST
from jobs.access.callers import Caller
from jobs.repository import projects, recorded_runs
from jobs.studies import records
from jobs.studies.expansion import Expansion
from jobs.studies.measurements import Trained


class RecordedRuns:
    """Recorded runs by the ids of their jobs. Results of other jobs come from the database."""

    def __init__(self, runs: Collection[RecordedRun] = ()) -> None:
        self._by_evaluation = {run.evaluation.id: run for run in runs}
        self._by_training = {run.training.id: run for run in runs}
        jobs: list[JobSummary] = [job for run in runs for job in (run.training, run.evaluation)]
        self.jobs = {job.labels[DIGEST]: job for job in jobs}  # by digest

    def __contains__(self, job_id: UUID) -> bool:
        return job_id in self._by_evaluation or job_id in self._by_training

    def splits(self, evaluation: UUID) -> dict[str, SplitAccuracies]:
        """Return the accuracies of an evaluation by dataset.

        Raises:
            Conflict: the accuracies are not stored.
        """
        run = self._by_evaluation.get(evaluation)
        return {one.split: one for one in run.splits} if run else records.load_splits(evaluation)

    def trained(self, training: UUID, names: Sequence[str]) -> Trained:
        """Return the results of a training job, with the means of the named metrics."""
        run = self._by_training.get(training)
        if run is None:
            return records.load_training(training, names)
        return Trained(run.curve, {name: run.metrics[name] for name in names if name in run.metrics})


def add(session: Session, post: RecordedRunPost, caller: Caller) -> None:
    """Add a recorded run to a project. It replaces one with the same settings.

    Raises:
        NotFound: there is no such project, or the caller cannot see it.
        Forbidden: the caller must be a member of the project.
    """
    caller.need(post.project, Role.MEMBER)
    projects.get(session, post.project)
    recorded_runs.put(session, post.project, post.run.evaluation.labels[DIGEST], post.run.model_dump(mode="json"))


def of(session: Session, expansion: Expansion) -> RecordedRuns:
    """Return the recorded runs of the project with the settings of this study. Those that another version has stored
    and this one does not accept are left out."""
    wanted = [job.digest for job in expansion.of("evaluation")]
    found = []
    for run in recorded_runs.load(session, expansion.project, wanted):
        with suppress(ValidationError):
            found.append(RecordedRun.model_validate(run))
    return RecordedRuns(found)
