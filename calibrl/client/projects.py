"""Projects: what each may use."""

from collections.abc import Mapping
from typing import Any

from calibrl.client.connection import MOST, Connection, path_of
from calibrl.schemas import Page, Project, ProjectSettings, Usage


class Projects(Connection):
    """Projects: what each may use."""

    def projects(self) -> list[Project]:
        """Projects and what each may use, by name, at most a thousand."""
        return self._get(Page[Project], "/v1/projects", limit=MOST).data

    def project(self, slug: str) -> Project:
        """One project."""
        return self._get(Project, path_of("projects", slug))

    def put_project(self, slug: str, settings: Mapping[str, Any] | ProjectSettings) -> Project:
        """Add a project, or change what it may use: what is left out is set to its default."""
        return self._send("PUT", Project, path_of("projects", slug), settings)

    def usage(self) -> list[Usage]:
        """This calendar month's slot-hours (UTC), by project and user."""
        return self._get(Page[Usage], "/v1/usage").data
