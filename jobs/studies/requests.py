"""Actions of users on a study: post, cancel, remove, report, record its runs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from calibrl.schemas import (
    AnySpec,
    FinishedRun,
    JobStatus,
    JobSummary,
    RecordedRun,
    Role,
    StudyReport,
    StudySpec,
    StudyStatus,
    job_spec_adapter,
)
from calibrl.schemas.recorded_runs import KEPT_POINTS, RecordedAccuracies, RecordedJob
from calibrl.schemas.studies import faults
from jobs import lifecycle, models
from jobs.access.callers import Caller
from jobs.db import session_scope
from jobs.errors import Conflict, FieldError, Invalid, NotFound, QuotaExceeded
from jobs.repository import studies
from jobs.specs import checks
from jobs.specs.references import References
from jobs.studies import hub_pins, recorded, search
from jobs.studies.curves import thinned
from jobs.studies.expansion import NO_JOB, Expansion, Part, Points, arms, expand, refused
from jobs.studies.measurements import Measurements
from jobs.studies.report import build_report
from jobs.studies.situation import Situation


@dataclass(frozen=True)
class Beginning:
    """A study with its first points and jobs."""

    study: StudySpec
    points: Points
    expansion: Expansion


def post(session: Session, begun: Beginning, caller: Caller) -> tuple[models.Study, bool]:
    """Add a study, or continue the study of this name in the project with this description: failed and cancelled runs
    are submitted again. Return it, and whether it is new. A service process takes its steps.

    Raises:
        Forbidden: the caller must be a member of the project.
        Invalid: fields that are not valid; each is named.
        Conflict: the study of this name is being cancelled.
    """
    study, expansion = begun.study, begun.expansion
    caller.need_named(expansion.project, Role.MEMBER)
    studies.lock_name(session, expansion.project, study.name)
    known = studies.lock_named(session, expansion.project, study.name)  # before the project, as its steps do
    _check(session, expansion, caller)
    spec = study.model_dump(mode="json", exclude_unset=True)
    if known is None:
        first = Situation(study, expansion, {}).progress().model_dump(mode="json")
        values = {"user": caller.user, "spec": spec, "points": dict(begun.points), "progress": first}
        return studies.add(session, project=expansion.project, name=study.name, **values), True
    if known.status is StudyStatus.CANCELLING:
        raise Conflict(f"Study {study.name} is being cancelled: post it again once it is cancelled.")
    if known.status.final:
        studies.forget_broken(session, known.id)
    if known.spec != spec:
        known.looks, known.points = {}, dict(search.kept_points(study, known.points))
    known.user, known.spec, known.status = caller.user, spec, StudyStatus.RUNNING
    known.message = known.finished_at = None
    studies.set_next(known, 0)
    session.flush()
    known.progress = situation(session, known).progress().model_dump(mode="json")
    return known, False


def cancel(session: Session, study_id: UUID) -> models.Study:
    """Cancel a study: a service process cancels the open jobs that it submitted and no other study uses.

    Raises:
        NotFound: no such study.
        Conflict: it has ended, or is being cancelled.
    """
    row = studies.lock(session, study_id)
    if row.status is not StudyStatus.RUNNING:
        raise Conflict(f"Study {row.name} cannot be cancelled: it is {row.status}.")
    row.status = StudyStatus.CANCELLING
    studies.set_next(row, 0)
    return row


def remove(session: Session, study_id: UUID) -> None:
    """Remove a study that has ended. Its jobs stay.

    Raises:
        NotFound: no such study.
        Conflict: it has not ended.
    """
    row = studies.lock(session, study_id)
    if not row.status.final:
        raise Conflict(f"Study {row.name} is {row.status}: cancel it first.")
    studies.remove(session, row)


def beginning(study: StudySpec, caller: Caller) -> Beginning:
    """Return a study with its first jobs, after a check of all specs. Reads the files that the jobs name and asks the
    hub, which can be slow: hold no transaction. The check of `post` uses the cached results.

    Raises:
        Forbidden: the caller must be a member of the project.
        Invalid: fields that are not valid.
        HubUnavailable: the hub cannot be reached.
    """
    search.require_sampler(study)
    arms(study)  # before points are chosen: the names and the number of the arms
    points = search.first_points(study)
    expansion = expand(study, points)
    caller.need_named(expansion.project, Role.MEMBER)
    study = hub_pins.pinned(study, expansion.project)
    expansion = expand(study, points)
    for _, spec in _first_specs(expansion):
        checks.file_problems(References.of(spec))
    return Beginning(study, points, expansion)


def situation(session: Session, row: models.Study) -> Situation:
    """Return the situation of a study by the jobs that exist.

    Raises:
        Invalid: another version of the service has accepted the study, and this one does not.
    """
    study, expansion = _expanded(json.dumps([row.spec, row.points]))
    known = {digest: JobSummary.model_validate(job) for digest, job in studies.jobs_of(session, row.id).items()}
    found = recorded.of(session, expansion)
    looks: Mapping[int, list[str]] = {int(seeds): arms for seeds, arms in row.looks.items()}
    return Situation(study, expansion, known | found.jobs, looks, found)


@lru_cache(16)
def _expanded(text: str) -> tuple[StudySpec, Expansion]:
    """Return a study with its jobs. It is kept: the steps of a study need it every few seconds. `text`: JSON of the
    stored description and the points."""
    spec, points = json.loads(text)
    try:
        study = StudySpec.model_validate(spec)
    except ValidationError as error:
        raise refused("spec", faults(error)) from error
    return study, expand(study, points)


def report(study_id: UUID) -> StudyReport:
    """Return the report of a study by the jobs that exist. Takes seconds for large studies.

    Raises:
        NotFound: no such study.
        Conflict: accuracies are not stored, or evaluations had different prompts.
        Invalid: this version of the service does not accept the study.
    """
    with session_scope() as session:
        row = studies.get(session, study_id)
        found = situation(session, row)
    return build_report(found, Measurements(found.recorded.splits), found.recorded.trained)


def finished_runs(session: Session, row: models.Study) -> list[FinishedRun]:
    """Return the runs of a study whose jobs have succeeded, in the order of its seeds and arms.

    Raises:
        Invalid: this version of the service does not accept the study.
    """
    found = situation(session, row)
    return [
        FinishedRun(arm=job.arm, seed=job.seed, digest=job.digest, recorded=evaluation.id in found.recorded)
        for job in found.expansion.of("evaluation")
        if job.arm is not None and job.seed is not None
        if (evaluation := found.known.get(job.digest)) and evaluation.status is JobStatus.SUCCEEDED
    ]


def record_run(study_id: UUID, arm: str, seed: int) -> RecordedRun:
    """Return a finished run of a study with its results.

    Raises:
        NotFound: no such study; it has no such run; or the run has not succeeded.
        Conflict: the accuracies are not stored.
        Invalid: this version of the service does not accept the study.
    """
    with session_scope() as session:
        row = studies.get(session, study_id)
        found = situation(session, row)
    parts: tuple[Part, ...] = ("training", "evaluation")
    planned = [job for part in parts for job in found.expansion.of(part, arm=arm, seed=seed)]
    jobs = [found.known[job.digest] for job in planned if job.digest in found.known]
    if len(jobs) < len(parts) or any(job.status is not JobStatus.SUCCEEDED for job in jobs):
        raise NotFound(f"There is no finished run of arm {arm} with seed {seed}.")
    training, evaluation = jobs
    results = found.recorded.trained(training.id, found.study.metrics)
    return RecordedRun(
        training=RecordedJob.model_validate(training),
        evaluation=RecordedJob.model_validate(evaluation),
        splits=[RecordedAccuracies.model_validate(one) for one in found.recorded.splits(evaluation.id).values()],
        curve=thinned(results.curve, KEPT_POINTS),
        metrics=results.metrics,
        origin=f"CalibRL {version('calibrl')}",
    )


def _check(session: Session, expansion: Expansion, caller: Caller) -> None:
    """Check the specs of the first run of each arm, and of its warm-up, as on submission."""
    problems = []
    for field, spec in _first_specs(expansion):
        try:
            lifecycle.check(session, spec, caller.projects)
        except QuotaExceeded:
            continue  # the jobs wait for room
        except Invalid as error:
            own = [one for one in error.errors if str(NO_JOB) not in one.message]
            problems += [FieldError(f"{field}.{one.field}", one.message) for one in own]
    if problems:
        raise Invalid("The study was not accepted.", tuple(problems))


def _first_specs(expansion: Expansion) -> Iterator[tuple[str, AnySpec]]:
    """Yield the spec of the first warm-up, of the first training of each arm, and of the first evaluation, each with
    the field of the study that describes it."""
    shown = set()
    for job in expansion.jobs:
        field = {"warm-up": "warm_up", "training": f"arms.{job.arm}", "evaluation": "evaluation"}[job.part]
        if field not in shown:
            shown.add(field)
            yield field, job_spec_adapter.validate_python(job.spec_from(NO_JOB))
