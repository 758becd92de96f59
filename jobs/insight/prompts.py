"""The life of prompts: their visits in a run and in other runs."""

from collections.abc import Collection

from sqlalchemy.orm import Session

from calibrl.schemas import PromptCounts, PromptLife, PromptList, PromptPage, PromptRun, PromptVisits, Visit
from jobs import models
from jobs.errors import NotFound
from jobs.repository import visits


def page(session: Session, job: models.Job, which: PromptList, *, after: str, limit: int) -> PromptPage:
    """Return a page of the prompts of a job that are in a list."""
    rows = visits.page(session, job.id, which, after=after, limit=limit + 1)
    return PromptPage(
        data=[PromptLife.model_validate(row) for row in rows[:limit]],
        has_more=len(rows) > limit,
        counts=PromptCounts(**visits.counts(session, job.id)),
    )


def life(session: Session, job: models.Job, prompt: str, visible_projects: Collection[str] | None) -> PromptVisits:
    """Return the visits of a prompt in a job and in others.

    Raises:
        NotFound: the job has not visited the prompt.
    """
    rows = visits.of_prompt(session, job.id, prompt)
    if not rows:
        raise NotFound(f"Job {job.id} has not visited a prompt {prompt}.")
    others = visits.runs_with(session, prompt, visible_projects=visible_projects, besides=job.id)
    return PromptVisits(
        prompt=prompt,
        prompt_id=rows[-1].prompt_id,
        expert=rows[-1].expert,
        visits=[Visit.model_validate(row) for row in rows],
        runs=[PromptRun.model_validate(row) for row in others],
    )
