"""Verdicts of people on stored completions, and the error rates of the verifiers."""

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.schemas import CompletionToJudge, Page, PersonVerdict, Picked, Trust

PAGE = 1000  # verdicts per request


class VerdictRequests(Connection):
    """Requests for verdicts of people."""

    def put_verdict(
        self, id: JobId, sample_id: int, completion: int, *, right: bool, picked: Picked = "chosen"
    ) -> PersonVerdict:
        """Say if a stored completion (index from 0) is right; `picked`: random if `next_to_judge` returned it."""
        return self._send("PUT", PersonVerdict, _path(id, sample_id, completion), {"right": right, "picked": picked})

    def remove_verdict(self, id: JobId, sample_id: int, completion: int) -> None:
        """Remove your verdict on a completion."""
        self._delete(_path(id, sample_id, completion))

    def verdicts(self, id: JobId, *, sample_id: int | None = None) -> list[PersonVerdict]:
        """Return all verdicts of people on the completions of a job, or of one sample, newest first."""
        found: list[PersonVerdict] = []
        more = True
        while more:
            before = found[-1].created_at.isoformat() if found else None
            options = {"sample_id": sample_id, "before": before, "limit": PAGE}
            page = self._get(Page[PersonVerdict], job_path(id, "verdicts"), **options)
            found += page.data
            more = page.has_more
        return found

    def next_to_judge(self, id: JobId) -> CompletionToJudge:
        """Return a random completion without a verdict. Refused (409) if all are judged."""
        return self._get(CompletionToJudge, job_path(id, "verdicts", "next"))

    def trust(self, id: JobId) -> Trust:
        """Return the error rates of the verifiers of a job with 95 % intervals."""
        return self._get(Trust, job_path(id, "trust"))


def _path(id: JobId, sample_id: int, completion: int) -> str:
    return job_path(id, "samples", str(sample_id), "completions", str(completion), "verdict")
