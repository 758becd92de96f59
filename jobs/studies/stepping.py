"""One step of a study: retries failed jobs, stops arms, and submits what should run. It can be interrupted at any
moment: the next step begins with the jobs that exist.
"""

from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from calibrl.schemas import JobSummary, Reason, StudyProgress
from jobs.errors import Conflict, QuotaExceeded
from jobs.studies.expansion import StudyJob
from jobs.studies.situation import Situation
from jobs.studies.state import to_retry

SUBMITTED_AT_ONCE = 40  # jobs per step, so that one study does not keep the others waiting

# Returns the arms to stop after the first N seeds of a study are evaluated.
Look = Callable[[Situation, int], Sequence[str]]


class StudyQueue(Protocol):
    """The queue as a study uses it."""

    def adopt(self, jobs: Sequence[StudyJob]) -> dict[str, JobSummary]:
        """Take over jobs of the project with the same settings, and return them by digest."""

    def submit(self, job: StudyJob, needs: UUID | None) -> JobSummary:
        """Submit a job that starts from the job `needs`.

        Raises:
            QuotaExceeded: the project has no room for it now.
            ServiceError: the job is refused.
        """

    def retry(self, job: JobSummary, *, count: bool) -> JobSummary:
        """Run a failed job again. `count`: the retry counts against the limit of the study.

        Raises:
            Conflict: the job changed a moment ago.
        """


def step(situation: Situation, queue: StudyQueue, look: Look) -> StudyProgress:
    """Bring a study forward as far as it can go now, and return the progress. `situation` has the new jobs and looks
    afterwards.

    Raises:
        ServiceError: a job is refused, or evaluations cannot be compared.
    """
    refusals = []
    while (missing := situation.to_submit()) and (adopted := queue.adopt(missing)):
        situation.known.update(adopted)  # now jobs that start from these can be adopted
    for failed in to_retry(situation.expansion, situation.known, situation.study.retries):
        refusals += _retry(situation, queue, failed)
    while (seeds := situation.due_look()) is not None:
        situation.looks[seeds] = look(situation, seeds)
    room = SUBMITTED_AT_ONCE
    for job in situation.allowed():
        if room and situation.can_submit(job):
            refused = _submit(situation, queue, job)
            refusals += refused
            room = 0 if refused else room - 1
    progress = situation.progress()
    return progress.model_copy(update={"notes": [*progress.notes, *refusals]})


def _submit(situation: Situation, queue: StudyQueue, job: StudyJob) -> list[str]:
    """Submit a job; return a note if the project has no room for it now."""
    before = situation.known[job.needs].id if job.needs else None
    try:
        situation.known[job.digest] = queue.submit(job, before)
    except QuotaExceeded as error:
        return [f"{job.spec['name']} is not submitted yet: {error}"]
    return []


def _retry(situation: Situation, queue: StudyQueue, planned: StudyJob) -> list[str]:
    job = situation.known[planned.digest]
    try:
        situation.known[planned.digest] = queue.retry(job, count=job.reason is not Reason.DEPENDENCY_FAILED)
    except Conflict as error:
        return [f"{job.name} is not retried: {error}"]
    return []
