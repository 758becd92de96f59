"""Sampled groups of jobs and their images."""

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.schemas import Page, Sample, SampleSummary


class SampleRequests(Connection):
    """Requests for sampled groups of jobs."""

    def samples(
        self,
        id: JobId,
        *,
        step: int | None = None,
        q: str | None = None,
        min_reward: float | None = None,
        max_reward: float | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Page[SampleSummary]:
        """Return sampled groups by ascending id, without contents, filtered by text and mean reward.

        `q` is searched in prompt, answer, expert and completions. A search that takes too long is refused (422).
        """
        return self._get(
            Page[SampleSummary],
            job_path(id, "samples"),
            step=step,
            q=q,
            min_reward=min_reward,
            max_reward=max_reward,
            after=after,
            limit=limit,
        )

    def sample(self, id: JobId, sample_id: int) -> Sample:
        """Return a sampled group with its contents."""
        return self._get(Sample, job_path(id, "samples", str(sample_id)))

    def image(self, id: JobId, sha256: str) -> bytes:
        """Return an image of a sample as PNG bytes."""
        return self._fetch(job_path(id, "images", sha256)).content
