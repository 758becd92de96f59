"""Projects and their limits."""

from collections.abc import Mapping
from typing import Any

from calibrl.client.connection import MOST, Connection, path_of
from calibrl.schemas import Page, Project, ProjectSettings, Usage


class ProjectRequests(Connection):
    """Projects and their limits."""

    def projects(self) -> list[Project]:
        """Return up to 1000 projects with their limits, by name."""
        return self._get(Page[Project], "/v1/projects", limit=MOST).data

    def project(self, slug: str) -> Project:
        """Return a project."""
        return self._get(Project, path_of("projects", slug))

    def put_project(self, slug: str, settings: Mapping[str, Any] | ProjectSettings) -> Project:
        """Create a project, or replace its limits. A limit that is not given gets its default."""
        return self._send("PUT", Project, path_of("projects", slug), settings)

    def usage(self) -> list[Usage]:
        """Return the slot-hours of this calendar month (UTC), per project and user."""
        return self._get(Page[Usage], "/v1/usage").data
