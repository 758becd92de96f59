"""Studies and their jobs."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import any_, cast, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.orm import Session, defer, undefer_group

from calibrl.schemas import JobStatus, StudyStatus
from jobs.errors import FieldError, Invalid, NotFound
from jobs.models import Job, Study, StudyEntry
from jobs.models.jobs import IN_LISTS

ACTIVE = (StudyStatus.RUNNING, StudyStatus.CANCELLING)
_PROJECT_LOCK = 0x57D1  # arbitrary, the same for all submissions of studies
_NAME_LOCK = 0x57D2  # arbitrary, the same for all posts of studies


def get(session: Session, study_id: UUID) -> Study:
    """Return a study.

    Raises:
        NotFound: no study has this id.
    """
    row = session.get(Study, study_id)
    if row is None:
        raise no_such(study_id)
    return row


def no_such(study_id: UUID) -> NotFound:
    """Return the error for a study that does not exist or is not visible to the caller."""
    return NotFound(f"There is no study {study_id}.")


def lock(session: Session, study_id: UUID) -> Study:
    """Lock a study until the transaction ends and return its present state.

    Raises:
        NotFound: no study has this id.
    """
    row = lock_if_exists(session, study_id)
    if row is None:
        raise no_such(study_id)
    return row


def lock_if_exists(session: Session, study_id: UUID) -> Study | None:
    """Lock a study until the transaction ends and return its present state, or None if it does not exist."""
    query = select(Study).where(Study.id == study_id).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def named(session: Session, project: str, name: str) -> Study | None:
    """Return the study of this name in a project, or None."""
    return session.scalar(select(Study).where(Study.project == project, Study.name == name))


def lock_named(session: Session, project: str, name: str) -> Study | None:
    """Lock and return the study of this name in a project, or return None."""
    return session.scalar(select(Study).where(Study.project == project, Study.name == name).with_for_update())


def lock_name(session: Session, project: str, name: str) -> None:
    """Take the lock of this name for posts, until the transaction ends. Of two first posts, the second finds the study
    of the first, and locks it before the project, as steps of studies do."""
    session.execute(select(func.pg_advisory_xact_lock(_NAME_LOCK, func.hashtext(f"{project}/{name}"))))


def lock_submissions(session: Session, project: str) -> None:
    """Take the lock of all studies of a project for submissions, until the transaction ends: two studies with the same
    run must not both submit it."""
    session.execute(select(func.pg_advisory_xact_lock(_PROJECT_LOCK, func.hashtext(project))))


def page(
    session: Session,
    *,
    visible_projects: frozenset[str] | None,
    project: str | None,
    name: str | None,
    after: UUID | None,
    limit: int,
) -> list[Study]:
    """Return the studies of these projects (None: of all), newest first, without their descriptions.

    Raises:
        Invalid: the study `after` does not exist.
    """
    query = select(Study).options(defer(Study.spec)).order_by(Study.created_at.desc(), Study.id.desc()).limit(limit)
    visible = [] if visible_projects is None else [Study.project.in_(visible_projects)]
    for column, value in ((Study.project, project), (Study.name, name)):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        place = session.execute(select(Study.created_at, Study.id).where(Study.id == after, *visible)).one_or_none()
        if place is None:
            fault = FieldError("after", f"study {after} does not exist")
            raise Invalid("The start of the page does not exist.", (fault,))
        query = query.where(tuple_(Study.created_at, Study.id) < tuple_(*place))
    return list(session.scalars(query.where(*visible)))


def add(session: Session, **values: Any) -> Study:
    """Add a study that runs, and return it. One of the same name that was added at the same time is returned."""
    fresh = {"status": StudyStatus.RUNNING, "looks": {}} | values
    session.execute(insert(Study).values(fresh).on_conflict_do_nothing(index_elements=[Study.project, Study.name]))
    row = lock_named(session, values["project"], values["name"])
    assert row is not None
    return row


def remove(session: Session, study: Study) -> None:
    """Remove a study. Its jobs stay."""
    session.delete(study)


def claim_due(session: Session, seconds: float) -> Study | None:
    """Return an active study whose next step is due, and reserve it for this process for so many seconds; None: no
    step is due."""
    query = select(Study).where(Study.status.in_(ACTIVE), Study.next_at <= func.clock_timestamp())
    row = session.scalar(query.order_by(Study.next_at).limit(1).with_for_update(skip_locked=True))
    if row is not None:
        set_next(row, seconds)
    return row


def set_next(study: Study, seconds: float) -> None:
    """Set the next step of a locked study to `seconds` from now."""
    study.next_at = func.clock_timestamp() + timedelta(seconds=seconds)


def mark_finished(study: Study) -> None:
    """Set the end of a locked study to now."""
    study.finished_at = func.clock_timestamp()


def jobs_of(session: Session, study_id: UUID) -> dict[str, Job]:
    """Return the jobs of a study by digest, without specs and results."""
    query = select(StudyEntry.digest, Job).join(Job, Job.id == StudyEntry.job_id)
    query = query.options(defer(Job.spec), defer(Job.result), defer(Job.notes), undefer_group(IN_LISTS))
    rows = session.execute(query.where(StudyEntry.study_id == study_id))
    return {row.digest: row.Job for row in rows}


def adoptable(session: Session, project: str, label: str, digests: Collection[str]) -> dict[str, Job]:
    """Return the jobs of a project that have one of these digests in a label and have not failed, by digest: a
    succeeded one, else the oldest. Forks and what-ifs do not count: they have the labels of another job, and other
    settings."""
    wanted = cast([{label: digest} for digest in digests], ARRAY(JSONB))
    query = select(Job).options(defer(Job.spec), defer(Job.result), defer(Job.notes))
    query = query.where(
        Job.project == project, Job.status.not_in(JobStatus.broken_ones()), Job.labels.contains(any_(wanted))
    )
    query = query.where(Job.kind.in_(("train", "evaluate")), Job.forked_from.is_(None))
    found: dict[str, Job] = {}
    for job in session.scalars(query.order_by((Job.status == JobStatus.SUCCEEDED).desc(), Job.created_at, Job.id)):
        found.setdefault(job.labels[label], job)
    return found


def put_jobs(session: Session, study_id: UUID, jobs: Mapping[str, UUID], *, adopted: bool) -> None:
    """Add jobs to a study by digest. A digest that has a job keeps it."""
    rows = [
        {"study_id": study_id, "digest": digest, "job_id": job_id, "adopted": adopted}
        for digest, job_id in jobs.items()
    ]
    if rows:
        session.execute(insert(StudyEntry).on_conflict_do_nothing(), rows)


def with_job(session: Session, job_id: UUID) -> str | None:
    """Return the name of a study that has this job."""
    query = select(Study.name).join(StudyEntry, StudyEntry.study_id == Study.id).where(StudyEntry.job_id == job_id)
    return session.scalar(query.limit(1))


def entry(session: Session, study_id: UUID, digest: str) -> StudyEntry | None:
    """Return the entry of a study with this digest, or None."""
    return session.get(StudyEntry, (study_id, digest), populate_existing=True)


def forget_broken(session: Session, study_id: UUID) -> None:
    """Remove the failed and cancelled jobs from a study, so that their runs are submitted again."""
    broken = select(Job.id).where(Job.status.in_(JobStatus.broken_ones()))
    session.execute(delete(StudyEntry).where(StudyEntry.study_id == study_id, StudyEntry.job_id.in_(broken)))


def open_jobs(session: Session, study_id: UUID) -> list[UUID]:
    """Return the jobs that a study submitted, that have not ended and that no other active study uses, oldest first."""
    other = select(StudyEntry.job_id).join(Study, Study.id == StudyEntry.study_id)
    others = other.where(Study.id != study_id, Study.status.in_(ACTIVE))
    query = select(Job.id).join(StudyEntry, StudyEntry.job_id == Job.id)
    query = query.where(StudyEntry.study_id == study_id, ~StudyEntry.adopted, Job.status.not_in(JobStatus.final_ones()))
    return list(session.scalars(query.where(Job.id.not_in(others)).order_by(Job.created_at, Job.id)))
