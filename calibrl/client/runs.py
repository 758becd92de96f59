"""What a run tells: samples, checkpoints, log."""

from collections.abc import Iterator

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.schemas import Checkpoint, LogChunk, Page, Sample, SampleSummary


class Runs(Connection):
    """What a run tells: samples, checkpoints, log."""

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
        """Sampled groups in ascending id, without their contents: those with `q` in prompt, answer, expert or a
        completion, and with a mean reward within bounds. A search that takes too long is refused (status 422)."""
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
        """One sampled group, whole."""
        return self._get(Sample, job_path(id, "samples", str(sample_id)))

    def image(self, id: JobId, sha256: str) -> bytes:
        """A sample's image: PNG bytes."""
        return self._fetch(job_path(id, "images", sha256)).content

    def log(self, id: JobId, *, after: int = 0) -> LogChunk:
        """The job's log from byte `after` on; ask again with `after=chunk.next`."""
        return self._get(LogChunk, job_path(id, "log"), after=after)

    def whole_log(self, id: JobId) -> Iterator[bytes]:
        """The job's log from its first byte to its last so far, piece by piece."""
        after = 0
        while (chunk := self.log(id, after=after)).next > after:
            yield chunk.text.encode()
            after = chunk.next

    def checkpoints(self, id: JobId) -> list[Checkpoint]:
        """The checkpoints that the job has kept."""
        return self._get(Page[Checkpoint], job_path(id, "checkpoints")).data
