"""Alert rules of projects."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from calibrl.client.connection import Connection, path_of
from calibrl.schemas import AlertRule, AlertRuleSettings, NewAlertRule, Page


class AlertRuleRequests(Connection):
    """Alert rules of projects. Changes are for admins of the project."""

    def alert_rules(self, project: str | None = None) -> list[AlertRule]:
        """Return the alert rules of a project, or of all your projects, by project and name."""
        return self._get(Page[AlertRule], "/v1/alert-rules", project=project).data

    def alert_rule(self, id: UUID | str) -> AlertRule:
        """Return an alert rule."""
        return self._get(AlertRule, path_of("alert-rules", str(id)))

    def add_alert_rule(self, new: Mapping[str, Any] | NewAlertRule) -> AlertRule:
        """Add an alert rule to a project."""
        return self._send("POST", AlertRule, "/v1/alert-rules", new)

    def put_alert_rule(self, id: UUID | str, settings: Mapping[str, Any] | AlertRuleSettings) -> AlertRule:
        """Replace the condition and the jobs of an alert rule. A field that is not given gets its default."""
        return self._send("PUT", AlertRule, path_of("alert-rules", str(id)), settings)

    def remove_alert_rule(self, id: UUID | str) -> None:
        """Remove an alert rule."""
        self._delete(path_of("alert-rules", str(id)))
