"""Prompts of training jobs: their visits over a run and across runs."""

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.schemas import PromptList, PromptPage, PromptVisits


class PromptRequests(Connection):
    """Requests for the visits of prompts."""

    def prompts(
        self, id: JobId, which: PromptList = "all", *, after: str | None = None, limit: int = 100
    ) -> PromptPage:
        """Return prompts that a job has visited, by digest: all, or those of one list."""
        return self._get(PromptPage, job_path(id, "prompts"), list=which, after=after, limit=limit)

    def prompt(self, id: JobId, prompt: str) -> PromptVisits:
        """Return all visits of a prompt in a job, and a summary for each other job with this prompt."""
        return self._get(PromptVisits, job_path(id, "prompts", prompt))
