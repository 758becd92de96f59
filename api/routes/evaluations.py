"""Results of evaluations and audits, comparisons of models, and replay of verifiers on stored completions."""

from typing import Annotated
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Body, Query, Request
from sqlalchemy.orm import Session

from api.deps import CurrentCaller, Db, ExistingJob, existing_job, read
from api.examples import REPLAYS
from api.idempotency import IdempotentRoute
from api.limits import ConcurrencyLimit
from calibrl.schemas import (
    MAX_STEP,
    Audit,
    Bisection,
    Comparison,
    Evaluation,
    Page,
    Replay,
    ReplayRequest,
    SplitAccuracies,
    WhatIf,
)
from jobs.errors import FieldError, Invalid
from jobs.evaluations import compare, replay, stored_result
from jobs.evaluations.compare import Selection

router = APIRouter(tags=["evaluations"], route_class=IdempotentRoute)
COMPARING = CapacityLimiter(2)
REPLAYING = ConcurrencyLimit(2)
_ENTRY = r"[0-9a-fA-F\-]{32,36}(:[0-9]{1,4})?"


@router.get("/jobs/{job_id}/evaluation")
def read_evaluation(session: Db, job: ExistingJob, caller: CurrentCaller) -> Evaluation:
    """Return the results of an evaluation: every model on every dataset with intervals, and paired comparisons."""
    found = compare.evaluation(job)
    compare.add_job_names(session, found.results, caller.projects)
    return found


@router.get("/jobs/{job_id}/accuracies")
def list_accuracies(
    session: Db,
    job: ExistingJob,
    split: Annotated[
        str | None, Query(max_length=500, description="Name of the dataset. None: all datasets of the evaluation.")
    ] = None,
) -> Page[SplitAccuracies]:
    """List the accuracy of each prompt, per model and dataset of an evaluation. Two evaluations of the same prompts can
    be compared prompt by prompt.
    """
    return Page(data=compare.split_accuracies(session, job, split), has_more=False)


@router.get("/jobs/{job_id}/audit")
def read_audit(job: ExistingJob) -> Audit:
    """Return the result of an audit of experts: counts, histograms, expected quadrants, and the worst rows."""
    return stored_result.audit(job)


@router.get("/jobs/{job_id}/what-if")
def read_what_if(job: ExistingJob) -> WhatIf:
    """Return the result of a what-if: each update beside that of the run, and completions with the change of each
    token.
    """
    return stored_result.what_if(job)


@router.get("/jobs/{job_id}/bisection")
def read_bisection(job: ExistingJob) -> Bisection:
    """Return the result of a bisection: the first bad update with its groups, and changes for a fork before it."""
    return stored_result.bisection(job)


@router.get("/evaluations/compare")
async def compare_evaluations(
    request: Request,
    caller: CurrentCaller,
    jobs: Annotated[
        str,
        Query(
            max_length=1000,
            pattern=f"^{_ENTRY}(,{_ENTRY})*$",
            description="Evaluations, separated by commas: an id for all its models, or id:model_index for one.",
            examples=["6f0c3c52-5c67-4b0c-9d2f-2d8bb57d5a0e,0c4f7c52-5c67-4b0c-9d2f-2d8bb57d5a0e:1"],
        ),
    ],
    split: Annotated[
        str | None,
        Query(max_length=500, description="Name of the dataset. None: all datasets that the evaluations share."),
    ] = None,
    seed: Annotated[int, Query(ge=0, le=MAX_STEP, description="Seed of the bootstrap.")] = 0,
) -> Page[Comparison]:
    """Compare models on the same prompts, in pairs, per dataset: the difference of their sampled accuracies with its
    95 % interval. An interval that includes 0 means not distinguishable. Only the same prompts can be compared.
    """

    def load(session: Session) -> compare.StoredAccuracies:
        entries = [Selection(existing_job(id, session, caller), index) for id, index in _entries(jobs)]
        return compare.load_accuracies(session, entries, split)

    data = await to_thread.run_sync(compare.compare, await read(request, load), seed, limiter=COMPARING)
    compared = [model for one in data for model in one.models]
    await read(request, lambda session: compare.add_job_names(session, compared, caller.projects))
    return Page(data=data, has_more=False)


@router.post("/jobs/{job_id}/replay")
async def replay_rewards(
    job_id: UUID,
    replay_request: Annotated[ReplayRequest, Body(openapi_examples=REPLAYS)],
    request: Request,
    caller: CurrentCaller,
) -> Replay:
    """Score the stored completions of a training job again with other verifiers; report newly passing and newly failing
    ones. Changes nothing. A hostile completion loses only its own verdict. At most two replays run at the same time,
    each for at most one minute; the answer covers the completions scored by then."""

    def load(session: Session) -> replay.StoredCompletions:
        job = existing_job(job_id, session, caller)
        replay.check(replay_request)
        return replay.load_completions(session, job.id, replay_request)

    with REPLAYING.one():
        return await to_thread.run_sync(replay.replay, await read(request, load), replay_request)


def _entries(text: str) -> list[tuple[UUID, int | None]]:
    try:
        parts = [one.partition(":") for one in text.split(",")]
        return [(UUID(id), int(index) if index else None) for id, _, index in parts]
    except ValueError as error:
        raise Invalid("The models cannot be compared.", (FieldError("jobs", "contains an invalid id"),)) from error
