"""Samples, checkpoints and log of a run."""

from collections.abc import Iterator

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.schemas import Checkpoint, LogChunk, Page, Sample, SampleSummary


class Runs(Connection):
    """Samples, checkpoints and log of a run."""

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

    def log(self, id: JobId, *, after: int = 0) -> LogChunk:
        """Return the log from byte `after`. The next call passes `after=chunk.next`."""
        return self._get(LogChunk, job_path(id, "log"), after=after)

    def whole_log(self, id: JobId) -> Iterator[bytes]:
        """Yield the log from its first byte to its current end, in pieces."""
        after = 0
        while (chunk := self.log(id, after=after)).next > after:
            yield chunk.text.encode()
            after = chunk.next

    def checkpoints(self, id: JobId) -> list[Checkpoint]:
        """Return the checkpoints of a job."""
        return self._get(Page[Checkpoint], job_path(id, "checkpoints")).data
