"""The loop that brings studies forward, in every API process. A step that is due is reserved for one process; a process
that dies loses the reservation after a minute. The rows of a study's jobs prevent a second job for the same run.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from calibrl.schemas import JobChanges, JobSummary, Role, StudyProgress, StudyStatus, job_spec_adapter
from jobs import lifecycle, models
from jobs.access import callers
from jobs.access.callers import Caller
from jobs.db import session_scope
from jobs.errors import Conflict, Forbidden, Invalid, ServiceError
from jobs.repository import jobs, studies
from jobs.specs import checks, hub_commits
from jobs.specs.references import References
from jobs.studies import requests, search
from jobs.studies.expansion import DIGEST, RETRIES, StudyJob
from jobs.studies.looks import arms_to_stop
from jobs.studies.measurements import Measurements
from jobs.studies.state import retried
from jobs.studies.stepping import step

RESERVED_SECONDS = 60.0  # for one step
PAUSE_SECONDS = 3.0  # between two steps of a study
AWAY_SECONDS = 30.0  # before the next step if a hub or a storage is away
STEPS_AT_ONCE = 20  # per round of the loop
CANCELLED_AT_ONCE = 40  # jobs per step

log = structlog.get_logger()


class Superseded(Exception):
    """The study was changed or cancelled during a step."""


def advance_due() -> int:
    """Take the steps of studies that are due, and return their number."""
    for count in range(STEPS_AT_ONCE):
        with session_scope() as session:
            row = studies.claim_due(session, RESERVED_SECONDS)
        if row is None:
            return count
        _advance(row)
    return STEPS_AT_ONCE


def _advance(row: models.Study) -> None:
    try:
        if row.status is StudyStatus.CANCELLING:
            _cancel_jobs(row)
        else:
            _take_step(row)
    except Superseded:
        return
    except ServiceError as error:
        log.warning("study stopped" if error.status < 500 else "study delayed", study=str(row.id), error=_text(error))
        _record_error(row, error)


def _take_step(row: models.Study) -> None:
    with session_scope() as session:
        caller = _submitter(session, row)
        situation = requests.situation(session, row)
    measurements = Measurements(situation.recorded.splits)
    points = search.more_points(situation, row.points, measurements)
    if points != row.points:  # stored before their jobs are submitted
        with session_scope() as session:
            now = _same(session, row)
            now.points = dict(points)
            situation = requests.situation(session, now)
    progress = step(situation, Submissions(row, caller), partial(arms_to_stop, measurements))
    with session_scope() as session:
        now = _same(session, row)
        now.looks = {str(seeds): [*arms] for seeds, arms in situation.looks.items()}
        _record(now, progress)


def _submitter(session: Session, row: models.Study) -> Caller:
    """Return the user of a study with the present roles.

    Raises:
        Forbidden: the user is not active, or not a member of the project any more.
    """
    caller = callers.acting_for(session, row.user)
    if caller is None or not caller.sees(row.project):
        raise Forbidden(f"{row.user} cannot submit jobs in project {row.project} any more: post the study again.")
    caller.need(row.project, Role.MEMBER)
    return caller


def _same(session: Session, row: models.Study) -> models.Study:
    """Lock a study and return it as it is now.

    Raises:
        Superseded: it was changed, cancelled or removed since it was read.
    """
    now = studies.lock_if_exists(session, row.id)
    if now is None or now.status is not row.status or now.spec != row.spec:
        raise Superseded
    return now


def _record(row: models.Study, progress: StudyProgress) -> None:
    row.progress = progress.model_dump(mode="json")
    studies.set_next(row, PAUSE_SECONDS)
    if progress.done:
        row.status = StudyStatus.FAILED if progress.failed else StudyStatus.SUCCEEDED
        studies.mark_finished(row)
        log.info("study ended", study=str(row.id), status=row.status)


def _record_error(row: models.Study, error: ServiceError) -> None:
    """End a study whose next job is refused; if the fault can pass, try again later."""
    with session_scope() as session:
        now = studies.lock_if_exists(session, row.id)
        if now is None or now.status is not row.status:
            return
        if error.status >= 500:
            now.progress = now.progress | {"notes": [_text(error)]}
            studies.set_next(now, AWAY_SECONDS)
            return
        now.status, now.message = StudyStatus.FAILED, _text(error)
        studies.mark_finished(now)


def _text(error: ServiceError) -> str:
    return " ".join([error.detail, *(f"{one.field}: {one.message}" for one in error.errors)])


def _cancel_jobs(row: models.Study) -> None:
    """Cancel open jobs of a study; the last step, without open jobs, ends it."""
    with session_scope() as session:
        open_jobs = studies.open_jobs(session, row.id)
    for job_id in open_jobs[:CANCELLED_AT_ONCE]:
        with session_scope() as session:
            try:
                lifecycle.cancel(session, job_id, actor=row.user)
            except Conflict:
                continue  # it has just ended, or its worker is stopping it
    with session_scope() as session:
        now = _same(session, row)
        with suppress(Invalid):  # another version has accepted the study: its last progress stays
            now.progress = requests.situation(session, now).progress().model_dump(mode="json")
        studies.set_next(now, PAUSE_SECONDS)
        if not open_jobs:
            now.status = StudyStatus.CANCELLED
            studies.mark_finished(now)


class Submissions:
    """The queue of a study, with the rights of its user. Each method is one transaction, which locks the study."""

    def __init__(self, row: models.Study, caller: Caller) -> None:
        self._row, self._caller = row, caller

    def adopt(self, planned: Sequence[StudyJob]) -> dict[str, JobSummary]:
        """Take over jobs of the project with the same settings, and return them by digest.

        Raises:
            Superseded: the study was changed or cancelled.
        """
        with session_scope() as session:
            _same(session, self._row)
            digests = [job.digest for job in planned]
            found = studies.adoptable(session, self._row.project, DIGEST, digests)
            studies.put_jobs(session, self._row.id, {digest: job.id for digest, job in found.items()}, adopted=True)
            return {digest: JobSummary.model_validate(job) for digest, job in found.items()}

    def submit(self, job: StudyJob, needs: UUID | None) -> JobSummary:
        """Submit a job that starts from the job `needs`, or adopt one that was submitted a moment ago.

        Raises:
            Superseded: the study was changed or cancelled.
            QuotaExceeded: the project has no room for it now.
            Invalid: the job is refused.
        """
        spec = job_spec_adapter.validate_python(job.spec_from(needs))
        checks.file_problems(References.of(spec))  # before the transaction, which uses the cached result
        spec = hub_commits.pinned(spec)
        with session_scope() as session:
            _same(session, self._row)
            studies.lock_submissions(session, self._row.project)
            if (entry := studies.entry(session, self._row.id, job.digest)) is not None:
                return JobSummary.model_validate(jobs.get(session, entry.job_id))
            adopted = studies.adoptable(session, self._row.project, DIGEST, [job.digest]).get(job.digest)
            try:
                found = adopted or lifecycle.submit(
                    session, spec, actor=self._caller.user, visible_projects=self._caller.projects
                )
            except Invalid as error:
                raise Invalid(f"{job.spec['name']} was refused.", error.errors) from error
            studies.put_jobs(session, self._row.id, {job.digest: found.id}, adopted=adopted is not None)
            return JobSummary.model_validate(found)

    def retry(self, job: JobSummary, *, count: bool) -> JobSummary:
        """Run a failed job again.

        Raises:
            Superseded: the study was changed or cancelled.
            Conflict: the job changed a moment ago.
        """
        with session_scope() as session:
            _same(session, self._row)
            again = lifecycle.retry(session, job.id, actor=self._caller.user)
            if count:
                labels = JobChanges(labels={RETRIES: str(retried(job) + 1)})
                again = lifecycle.edit(session, job.id, labels, actor=self._caller.user)
            return JobSummary.model_validate(again)
