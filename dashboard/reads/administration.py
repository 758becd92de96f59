"""Reads of the administration and of saved views, cached per API key: a rerun of the page asks for nothing again."""

from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.schemas import AlertRule, ApiKey, AuditEntry, Delivery, Member, Project, SavedView, Usage, User, Webhook
from dashboard import signin
from dashboard.reads import service

MOST_ENTRIES = 200  # of the audit log


@st.cache_resource(ttl=service.QUEUE_FRESH, max_entries=256, show_spinner=False)
def _read(key: str, method: str, *given: Any) -> Any:
    return getattr(service.client(), method)(*given)


def forget() -> None:
    """Read all again: a viewer has just changed something."""
    _read.clear()
    _audit.clear()


def users() -> list[User]:
    """Return the users of the service."""
    found: list[User] = _read(signin.key(), "users")
    return found


def keys(user: str | None) -> list[ApiKey]:
    """Return the keys of a user, newest first; None: of the viewer."""
    found: list[ApiKey] = _read(signin.key(), "keys", user)
    return found


def members(project: str) -> list[Member]:
    """Return the members of a project with their roles."""
    found: list[Member] = _read(signin.key(), "members", project)
    return found


def limits(project: str) -> Project:
    """Return a project with its limits."""
    found: Project = _read(signin.key(), "project", project)
    return found


def webhooks(project: str) -> list[Webhook]:
    """Return the webhooks of a project."""
    found: list[Webhook] = _read(signin.key(), "webhooks", project)
    return found


def deliveries(project: str, id: UUID) -> list[Delivery]:
    """Return the latest messages of a webhook, newest first."""
    found: list[Delivery] = _read(signin.key(), "deliveries", project, id)
    return found


def alert_rules(project: str) -> list[AlertRule]:
    """Return the alert rules of a project."""
    found: list[AlertRule] = _read(signin.key(), "alert_rules", project)
    return found


def usage(project: str) -> list[Usage]:
    """Return the use of a project this month, by user."""
    found: list[Usage] = _read(signin.key(), "usage")
    return [row for row in found if row.project == project]


def views() -> list[SavedView]:
    """Return the viewer's saved views, by name."""
    found: list[SavedView] = _read(signin.key(), "views")
    return found


def audit(project: str, user: str | None) -> list[AuditEntry]:
    """Return the latest changes in a project, of a user or of all."""
    return _audit(signin.key(), project, user)


@st.cache_resource(ttl=service.QUEUE_FRESH, max_entries=64, show_spinner=False)
def _audit(key: str, project: str, user: str | None) -> list[AuditEntry]:
    return service.client().audit(project=project, user=user, limit=MOST_ENTRIES)
