"""Run jobs again, and compare the series of two jobs."""

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.client.job import Job
from calibrl.client.jobs import SUBMIT_TIMEOUT
from calibrl.schemas import AttemptRecord, Page, SeriesComparison


class ReproductionRequests(Connection):
    """Run jobs again, and compare the series of two jobs."""

    def reproduce(self, id: JobId) -> Job:
        """Run a job again from the start, with the same settings and seeds."""
        return self._send("POST", Job, job_path(id, "reproduce"), {}, timeout=SUBMIT_TIMEOUT)

    def attempts(self, id: JobId) -> list[AttemptRecord]:
        """Return the attempts of a job, each with what it ran on."""
        return self._get(Page[AttemptRecord], job_path(id, "attempts")).data

    def compare_series(self, id: JobId, other: JobId | None = None) -> SeriesComparison:
        """Compare the metrics of a job with those of another, step by step. None: the one from which it was made."""
        return self._get(SeriesComparison, job_path(id, "series-comparison"), other=other)
