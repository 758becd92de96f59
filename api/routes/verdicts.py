"""Verdicts of people on stored completions, and the error rates of the verifiers."""

from typing import Annotated

from fastapi import APIRouter, Body, Path

from api.bodies import BoundedRoute
from api.deps import MAX_ID, CurrentCaller, Db, ExistingJob
from api.examples import VERDICTS
from calibrl.schemas import CompletionToJudge, NewVerdict, Page, PersonVerdict, Role, Trust
from jobs.insight import trust
from jobs.repository import verdicts

router = APIRouter(prefix="/jobs/{job_id}", tags=["verdicts"], route_class=BoundedRoute)
SampleId = Annotated[int, Path(ge=0, le=MAX_ID, description="Id of the sample.")]
Place = Annotated[int, Path(ge=0, le=1000, description="Index of the completion in its group, from 0.")]
ONE = "/samples/{sample_id}/completions/{completion}/verdict"


@router.put(ONE)
def put_verdict(
    session: Db,
    job: ExistingJob,
    caller: CurrentCaller,
    sample_id: SampleId,
    completion: Place,
    verdict: Annotated[NewVerdict, Body(openapi_examples=VERDICTS)],
) -> PersonVerdict:
    """Say if a stored completion is right. Your earlier verdict on it is replaced. Rewards do not change."""
    caller.need(job.project, Role.MEMBER)
    return trust.judge(session, job, sample_id, completion, caller.user, verdict)


@router.delete(ONE, status_code=204)
def remove_verdict(
    session: Db, job: ExistingJob, caller: CurrentCaller, sample_id: SampleId, completion: Place
) -> None:
    """Remove your verdict on a completion."""
    caller.need(job.project, Role.MEMBER)
    trust.withdraw(session, job, sample_id, completion, caller.user)


@router.get("/verdicts")
def list_verdicts(session: Db, job: ExistingJob) -> Page[PersonVerdict]:
    """List all verdicts of people on the completions of a job, newest first."""
    data = [PersonVerdict.model_validate(row) for row in verdicts.of_job(session, job.id)]
    return Page(data=data, has_more=False)


@router.get("/verdicts/next")
def read_next_completion(session: Db, job: ExistingJob) -> CompletionToJudge:
    """Return a random stored completion to judge, without the verifiers' verdict."""
    return trust.next_to_judge(session, job)


@router.get("/trust")
def read_trust(session: Db, job: ExistingJob) -> Trust:
    """Return the error rates of the job's verifiers with 95 % intervals, by the verdicts of people, and the accuracy
    that follows."""
    return trust.trust(session, job)
