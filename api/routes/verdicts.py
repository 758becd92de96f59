"""Verdicts of people on stored completions, and the error rates of the verifiers."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from pydantic import AwareDatetime

from api.bodies import BoundedRoute
from api.deps import MAX_ID, CurrentCaller, Db, ExistingJob, Limit, WritableJob, page
from api.examples import VERDICTS
from calibrl.schemas import CompletionToJudge, NewVerdict, Page, PersonVerdict, Trust
from jobs.insight import trust
from jobs.repository import verdicts

router = APIRouter(prefix="/jobs/{job_id}", tags=["verdicts"], route_class=BoundedRoute)
SampleId = Annotated[int, Path(ge=0, le=MAX_ID, description="Id of the sample.")]
Place = Annotated[int, Path(ge=0, le=1000, description="Index of the completion in its group, from 0.")]
ONE = "/samples/{sample_id}/completions/{completion}/verdict"


@router.put(ONE)
def put_verdict(
    session: Db,
    job_id: WritableJob,
    caller: CurrentCaller,
    sample_id: SampleId,
    completion: Place,
    verdict: Annotated[NewVerdict, Body(openapi_examples=VERDICTS)],
) -> PersonVerdict:
    """Say if a stored completion is right. Your earlier verdict on it is replaced. Rewards do not change."""
    return trust.judge(session, job_id, sample_id, completion, caller.user, verdict)


@router.delete(ONE, status_code=204)
def remove_verdict(
    session: Db, job_id: WritableJob, caller: CurrentCaller, sample_id: SampleId, completion: Place
) -> None:
    """Remove your verdict on a completion."""
    trust.withdraw(session, job_id, sample_id, completion, caller.user)


@router.get("/verdicts")
def list_verdicts(
    session: Db,
    job: ExistingJob,
    sample_id: Annotated[int | None, Query(ge=0, le=MAX_ID, description="Only verdicts on this sample.")] = None,
    before: Annotated[
        AwareDatetime | None, Query(description="Only verdicts before this time: `created_at` of the last one so far.")
    ] = None,
    limit: Limit = 100,
) -> Page[PersonVerdict]:
    """List the verdicts of people on the completions of a job, newest first."""
    found = verdicts.of_job(session, job.id, sample_id, before=before, limit=limit + 1)
    return page(found, limit, PersonVerdict)


@router.get("/verdicts/next")
def read_next_completion(session: Db, job: ExistingJob) -> CompletionToJudge:
    """Return a random stored completion to judge, without the verifiers' verdict."""
    return trust.next_to_judge(session, job)


@router.get("/trust")
def read_trust(session: Db, job: ExistingJob) -> Trust:
    """Return the error rates of the job's verifiers with 95 % intervals, by the verdicts of people, and the accuracy
    that follows."""
    return trust.trust(session, job)
