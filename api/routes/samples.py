"""The sampled groups that a job keeps for reading."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import MAX_ID, AfterId, Db, ExistingJob, Limit, page
from calibrl.schemas import MAX_STEP, Page, Sample, SampleSummary
from jobs.repository import samples

router = APIRouter(prefix="/jobs/{job_id}/samples", tags=["runs"])


@router.get("")
def list_samples(
    session: Db,
    job: ExistingJob,
    step: Annotated[int | None, Query(ge=0, le=MAX_STEP, description="Only samples of this step.")] = None,
    q: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="Text in the prompt, its id, the answer, the expert or a completion.",
        ),
    ] = None,
    min_reward: Annotated[float | None, Query(allow_inf_nan=False, description="Minimum mean reward.")] = None,
    max_reward: Annotated[float | None, Query(allow_inf_nan=False, description="Maximum mean reward.")] = None,
    after: AfterId = 0,
    limit: Limit = 100,
) -> Page[SampleSummary]:
    """List sampled groups in the order of their arrival, without their contents."""
    rows = samples.page(
        session,
        job.id,
        step=step,
        after=after,
        limit=limit + 1,
        text=q,
        min_reward=min_reward,
        max_reward=max_reward,
    )
    return page(rows, limit, SampleSummary)


@router.get("/{sample_id}")
def read_sample(session: Db, job: ExistingJob, sample_id: Annotated[int, Path(ge=0, le=MAX_ID)]) -> Sample:
    """Return one whole group: prompt, expert, and each completion with its rewards and per-token values."""
    return Sample.model_validate(samples.get(session, job.id, sample_id))
