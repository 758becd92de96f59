"""Prompts of a training job: each visit of each prompt."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import CurrentCaller, Db, ExistingJob, Limit
from calibrl.schemas import PromptList, PromptPage, PromptVisits
from jobs.insight import prompts

router = APIRouter(prefix="/jobs/{job_id}/prompts", tags=["runs"])
DIGEST = r"^[0-9a-f]{16}$"


@router.get("")
def list_prompts(
    session: Db,
    job: ExistingJob,
    which: Annotated[PromptList, Query(alias="list", description="Prompts to return.")] = "all",
    after: Annotated[
        str, Query(pattern=r"^([0-9a-f]{16})?$", description="Digest of the last prompt of the previous page.")
    ] = "",
    limit: Limit = 100,
) -> PromptPage:
    """List the prompts that a job has visited, by digest, with the share of correct rollouts at each visit."""
    return prompts.page(session, job, which, after=after, limit=limit)


@router.get("/{prompt}")
def read_prompt(
    session: Db,
    job: ExistingJob,
    caller: CurrentCaller,
    prompt: Annotated[str, Path(pattern=DIGEST, description="Digest of the prompt.")],
) -> PromptVisits:
    """Return all visits of a prompt in this job, and a summary for each other job that you can see."""
    return prompts.life(session, job, prompt, caller.projects)
