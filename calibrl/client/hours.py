"""Slot-hours of jobs and projects, by what they bought."""

from calibrl.client.connection import Connection, JobId, job_path, path_of
from calibrl.schemas import JobHours, ProjectHours


class HourRequests(Connection):
    """Requests for slot-hours."""

    def hours(self, id: JobId) -> JobHours:
        """Return the slot-hours of a job by what they bought. Refused (409) until it has started."""
        return self._get(JobHours, job_path(id, "hours"))

    def project_hours(self, slug: str, *, days: int = 30) -> ProjectHours:
        """Return the slot-hours of the attempts of a project that began in the last `days` (1 to 366)."""
        return self._get(ProjectHours, path_of("projects", slug, "hours"), days=days)
