"""Administration: members, limits, webhooks, alert rules, usage and the audit log of a project; users and keys of the
service."""

from collections.abc import Callable

import streamlit as st

from dashboard import addresses, states
from dashboard.forms import changes
from dashboard.reads import catalogue, service
from dashboard.views import admin_project, admin_service, alert_rules

View = Callable[[str], None]
OF_PROJECT: dict[str, View] = {
    "Members": admin_project.members,
    "Webhooks": admin_project.webhooks,
    "Alert rules": alert_rules.draw,
    "Usage": admin_project.usage,
    "Audit log": admin_project.audit,
}
LIMITS = "Limits"  # of a project, set by admins of the service
OF_SERVICE: dict[str, Callable[[], None]] = {
    "Users": admin_service.users,
    "Keys": admin_service.keys,
    "New project": admin_service.new_project,
}


def page() -> None:
    """Draw the page."""
    me = service.me()
    st.title("Administration", anchor=False)
    projects = catalogue.administered()
    if not catalogue.may_administer():
        states.empty("No access", "You need the admin role in a project, or of the service, and a key that can write.")
        return
    of_project = OF_PROJECT | ({LIMITS: admin_project.limits} if me.admin else {})
    views = [*(of_project if projects else ()), *(OF_SERVICE if me.admin else ())]
    addresses.check("part", views, views[0])
    view = st.segmented_control(
        "Part", views, default=views[0], required=True, key="part", bind="query-params", label_visibility="collapsed"
    )
    changes.show_notice()
    if view in OF_SERVICE:
        OF_SERVICE[view]()
        return
    addresses.check("admin-project", projects, projects[0])
    project = st.selectbox("Project", projects, key="admin-project", bind="query-params")
    of_project[view or views[0]](project)


with states.explained():
    page()
