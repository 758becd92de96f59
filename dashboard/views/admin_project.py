"""Administration of a project: members, limits, webhooks, usage, audit log."""

from typing import Any, get_args

import streamlit as st

from calibrl.schemas import (
    Member,
    NewWebhook,
    ProjectSettings,
    Role,
    Usage,
    Webhook,
    WebhookEvent,
    WebhookFormat,
)
from calibrl.schemas.webhooks import DEFAULT_EVENTS
from dashboard.forms.changes import change
from dashboard.markup import as_markdown, escape, moment, progress_bar, table
from dashboard.palette import POLICY
from dashboard.reads import administration, service

EVENTS: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
SECRET = "webhook-secret"  # session key: of a webhook that was just added
LIMITS = {  # field of `ProjectSettings`: label
    "weight": "Fair-share weight",
    "max_gpus": "Max GPUs at the same time",
    "max_queued": "Max waiting jobs",
    "budget_slot_hours": "Slot-hours per month, project",
    "user_budget_slot_hours": "Slot-hours per month and user",
    "retention_days": "Days until files of ended jobs are deleted",
}


def members(project: str) -> None:
    """Draw the members of a project with their roles."""
    st.write("Viewers read. Members also submit and control jobs. Admins also manage members and webhooks.")
    for member in administration.members(project):
        _member(project, member)
    with st.form("add-member", border=True, clear_on_submit=True):
        st.subheader("Add member", anchor=False)
        user = st.text_input("User", max_chars=63)
        role = st.selectbox("Role", [*Role], 1)
        if st.form_submit_button("Add member", type="primary"):
            change(lambda: service.client().put_member(project, user, role), f"{user} is now {role} of {project}.")


def _member(project: str, member: Member) -> None:
    name, role, save = st.columns([3, 2, 2], vertical_alignment="center")
    name.write(f"**{as_markdown(member.user)}**")
    roles = [*Role]
    chosen = role.selectbox(
        f"Role of {member.user}", roles, roles.index(member.role), key=f"role-{project}-{member.user}",
        label_visibility="collapsed",
    )  # fmt: skip
    with save.container(horizontal=True):
        if st.button("Save", key=f"save-{member.user}", disabled=chosen is member.role):
            change(
                lambda: service.client().put_member(project, member.user, chosen),
                f"{member.user} is now {chosen} of {project}.",
            )
        with st.popover("Remove"):
            st.write("The user loses access to the project. Jobs stay.")
            if st.button("Remove member", key=f"remove-{member.user}", type="primary"):
                change(
                    lambda: service.client().remove_member(project, member.user),
                    f"{member.user} is no longer a member of {project}.",
                )


def limits(project: str) -> None:
    """Draw the form of the limits of a project."""
    now = administration.limits(project)
    described = ProjectSettings.model_json_schema()["properties"]
    with st.form("limits", border=True):
        values: dict[str, Any] = {}
        with st.grid(2, min_column_width=250):
            for field, title in LIMITS.items():
                whole = field in ("max_gpus", "max_queued", "retention_days")
                values[field] = st.number_input(
                    title,
                    value=getattr(now, field),
                    step=1 if whole else 0.5,
                    placeholder="no limit",
                    key=f"{project}-{field}",
                    help=as_markdown(described[field]["description"]),
                )
        if st.form_submit_button("Save limits", type="primary"):
            change(
                lambda: service.client().put_project(project, ProjectSettings.model_validate(values)),
                f"Limits of {project} saved.",
            )


def webhooks(project: str) -> None:
    """Draw the webhooks of a project, with their last messages."""
    st.write(
        "A webhook receives a message when something happens to a job of the project: a signed one, one in the form of "
        "Slack, Teams or Discord, or an e-mail."
    )
    if secret := st.session_state.pop(SECRET, None):
        st.success("Copy the secret that signs the messages now. It is not shown again.")
        st.code(secret, language=None)
    for hook in administration.webhooks(project):
        _webhook(project, hook)
    with st.form("add-webhook", border=True):
        st.subheader("Add webhook", anchor=False)
        url = st.text_input("URL", max_chars=2000, placeholder="https://… or mailto:ada@example.com")
        format = st.selectbox("Format", [*WebhookFormat], help="Format email needs a URL that begins with mailto:")
        events = st.multiselect("Events", EVENTS, DEFAULT_EVENTS)
        added = st.form_submit_button("Add webhook", type="primary")
    if added:
        change(lambda: _add(project, url, format, events), "Webhook added.")


def _add(project: str, url: str, format: WebhookFormat, events: list[WebhookEvent]) -> None:
    created = service.client().add_webhook(project, NewWebhook(url=url, format=format, events=tuple(events)))
    st.session_state[SECRET] = created.secret


def _webhook(project: str, hook: Webhook) -> None:
    with st.container(border=True, key=f"card-{hook.id}"):
        st.write(f"**{as_markdown(hook.url)}** · by {as_markdown(hook.created_by)}, {moment(hook.created_at)}")
        st.caption(f"{hook.format.value}: {', '.join(hook.events)}")
        rows = (
            f"<tr><td>{escape(moment(one.created_at))}</td><td>{escape(one.type)}</td><td>{one.status.value}</td>"
            f'<td data-label="Tries">{one.attempts}</td><td>{escape(one.response or "–")}</td></tr>'
            for one in administration.deliveries(project, hook.id)[:5]
        )
        st.html(table(("Sent", "Event", "Status", "Tries", "Answer"), rows))
        with st.container(horizontal=True):
            if st.button("Send a test message", key=f"ping-{hook.id}"):
                change(lambda: service.client().ping_webhook(project, hook.id), "Test message queued.")
            with st.popover("Remove"):
                if st.button("Remove webhook", key=f"drop-{hook.id}", type="primary"):
                    change(lambda: service.client().remove_webhook(project, hook.id), "Webhook removed.")


def usage(project: str) -> None:
    """Draw the slot-hours of this month by user."""
    rows = administration.usage(project)
    total, budget = sum(row.slot_hours for row in rows), administration.limits(project).budget_slot_hours
    st.write(f"**{total:.1f}** slot-hours this month (UTC)" + (f" of {budget:g}" if budget else ""))
    if budget:
        st.html(progress_bar(total / budget, POLICY, f"budget of {project}"))
    if not rows:
        st.caption("No use this month")
        return
    st.html(table(("User", "Slot-hours", "GPU-hours"), map(_use, sorted(rows, key=lambda row: -row.slot_hours))))


def _use(row: Usage) -> str:
    return (
        f'<tr><td>{escape(row.user)}</td><td data-label="Slot-hours">{row.slot_hours:.1f}</td>'
        f'<td data-label="GPU-hours">{row.gpu_hours:.1f}</td></tr>'
    )


def audit(project: str) -> None:
    """Draw the latest changes in a project."""
    user = st.text_input("User", key="audit-user", max_chars=63, placeholder="All users").strip()
    entries = administration.audit(project, user or None)
    if not entries:
        st.caption("No changes")
        return
    rows = (
        f"<tr><td>{escape(moment(one.ts))}</td><td>{escape(one.user)}</td><td>{escape(one.action)}</td>"
        f'<td style="overflow-wrap:anywhere"><code>{escape(one.path)}</code></td></tr>'
        for one in entries
    )
    st.html(table(("Time", "User", "Action", "Path"), rows))
    st.caption(f"Latest {len(entries)}")
