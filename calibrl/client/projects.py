"""Projects and their limits."""

from collections.abc import Mapping
from typing import Any

from calibrl.client.connection import MOST, Connection, path_of
from calibrl.client.errors import CalibrlError
from calibrl.schemas import Page, Project, ProjectSettings, Usage

CHANGE_TRIES = 3
CHANGED_MEANWHILE = 412  # HTTP


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

    def add_project(self, slug: str) -> Project:
        """Add a project without limits. One that exists is refused (412)."""
        return self._send("PUT", Project, path_of("projects", slug), {}, headers={"If-None-Match": "*"})

    def change_project(self, slug: str, changes: Mapping[str, Any]) -> Project:
        """Change limits of a project; the others stay, also if another person changes them at the same time."""
        path = path_of("projects", slug)
        for _ in range(CHANGE_TRIES):
            current = self._fetch(path)
            settings = self._parsed(Project, current).model_dump(include={*ProjectSettings.model_fields})
            if_match = {"If-Match": current.headers["ETag"]} if "ETag" in current.headers else {}
            try:
                return self._send("PUT", Project, path, settings | dict(changes), headers=if_match)
            except CalibrlError as error:
                if error.status != CHANGED_MEANWHILE:
                    raise
        raise CalibrlError(f"project {slug} is being changed by others: try again", status=CHANGED_MEANWHILE)

    def remove_project(self, slug: str) -> None:
        """Remove a project with its members and webhooks. Refused (409) while it has jobs, datasets or studies."""
        self._delete(path_of("projects", slug))

    def usage(self) -> list[Usage]:
        """Return the slot-hours of this calendar month (UTC), per project and user."""
        return self._get(Page[Usage], "/v1/usage").data
