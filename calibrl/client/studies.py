"""Studies: post, follow, cancel, report."""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

import httpx

from calibrl.client.connection import Connection, checked, path_of
from calibrl.schemas import FinishedRun, Page, RecordedRun, RecordedRunPost, Study, StudyReport, StudySpec, StudySummary

TIMEOUT = httpx.Timeout(120.0, connect=3.0)  # the service reads data files, or compares many runs


class StudyRequests(Connection):
    """Post studies, follow them, and read their reports."""

    def post_study(self, study: Mapping[str, Any] | StudySpec) -> Study:
        """Add a study, or continue the study of this name in its project with this description."""
        return self._send("POST", Study, "/v1/studies", study, timeout=TIMEOUT)

    def study(self, id: UUID | str) -> Study:
        """Return a study with its progress."""
        return self._get(Study, path_of("studies", str(id)))

    def studies(
        self, *, project: str | None = None, name: str | None = None, after: UUID | None = None, limit: int = 100
    ) -> Page[StudySummary]:
        """Return studies, newest first. `after` is the id of the last study of the previous page."""
        return self._get(Page[StudySummary], "/v1/studies", project=project, name=name, after=after, limit=limit)

    def cancel_study(self, id: UUID | str) -> Study:
        """Cancel a study and the open jobs that it submitted. Refused (409) if it has ended."""
        return self._ask(Study, path_of("studies", str(id), "cancel"))

    def remove_study(self, id: UUID | str) -> None:
        """Remove a study that has ended. Its jobs stay."""
        self._delete(path_of("studies", str(id)))

    def study_report(self, id: UUID | str) -> StudyReport:
        """Return the report of a study, of the runs that have ended so far."""
        return StudyReport.model_validate_json(self._report(id, "json").content)

    def study_page(self, id: UUID | str, format: Literal["markdown", "html"], *, dashboard: str | None = None) -> str:
        """Return the report of a study as a page. `dashboard`: its address, for the links to jobs."""
        return self._report(id, format, dashboard).text

    def study_runs(self, id: UUID | str) -> list[FinishedRun]:
        """Return the finished runs of a study, in the order of its seeds and arms, without their results."""
        return self._get(Page[FinishedRun], path_of("studies", str(id), "runs")).data

    def study_run(self, id: UUID | str, arm: str, seed: int) -> RecordedRun:
        """Return a finished run of a study with its results per prompt."""
        response = self._fetch(path_of("studies", str(id), "runs", arm, str(seed)))
        return RecordedRun.model_validate_json(response.content)

    def add_study_run(self, run: RecordedRun, *, project: str = "default") -> None:
        """Add a run that another service made. Studies of the project use it in place of jobs of the same settings."""
        body = RecordedRunPost(project=project, run=run).model_dump(mode="json")
        checked(self._post("/v1/studies/runs", json=body))

    def _report(self, id: UUID | str, format: str, dashboard: str | None = None) -> httpx.Response:
        return self._fetch(path_of("studies", str(id), "report"), format=format, dashboard=dashboard)
