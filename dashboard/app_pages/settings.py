"""The viewer's roles, theme and API keys."""

from datetime import UTC, datetime

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import ApiKey, Me, NewKey, Role
from dashboard import signin, states, theme
from dashboard.forms import numbers
from dashboard.markup import escape, moment
from dashboard.reads import service
from dashboard.views import notifications

DAYS = {"minimum": 0, "maximum": 3660}  # until a key expires
SCOPES = {"write": "read and write", "read": "read-only"}
BUTTON = (
    "padding:.35rem .9rem;border-radius:.5rem;border:1px solid rgba(125,131,140,.5);background:none;color:inherit;"
    "font:inherit;cursor:pointer"
)


def _who(me: Me) -> None:
    st.title("Settings", anchor=False)
    with st.container(border=True):
        st.subheader(me.user, anchor=False)
        if me.admin:
            st.write("Admin of the service: all rights in all projects.")
        elif me.projects:
            st.table({"Project": list(me.projects), "Role": [role.value for role in me.projects.values()]})
        else:
            st.write("No project yet. Ask the admin of a project to add you.")
        if me.scope == "read":
            st.caption("This key is read-only.")
        if signin.by_cookie():
            button = f'<button type="submit" style="{BUTTON}">Sign out</button>'
            st.html(f'<form method="post" action="{signin.OUT}">{button}</form>')


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at and key.expires_at <= datetime.now(UTC):
        return "expired"
    return f"valid until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"


def _keys(me: Me) -> None:
    st.subheader("API keys", anchor=False)
    st.write("A key is shown once, when it is created. Revoke a key that others may have seen.")
    mine = service.client().keys()
    for key in mine:
        name, state, used, action = st.columns([3, 2, 2, 1], vertical_alignment="center")
        name.html(f"<b>{escape(key.name)}</b> <span style='opacity:.75'>{escape(key.prefix)}… {key.scope}</span>")
        is_current = key.id == me.key_id
        is_own = bool(key.prefix) and signin.own().startswith(key.prefix)
        if is_own:
            name.caption("Key of the local service. The link that calibrl up prints signs in with it.")
        state.write(f"{_state(key)}, current" if is_current else _state(key))
        used.write(f"used {moment(key.last_used_at)}" if key.last_used_at else "never used")
        if me.scope == "write" and key.revoked_at is None and not is_own:
            with action.popover("Revoke"):
                st.write(f"Clients with this key lose access at once{', also this browser' if is_current else ''}.")
                if st.button("Revoke key", key=f"revoke-{key.id}", type="primary"):
                    service.client().revoke_key(key.id)
                    st.rerun()


def _new_key() -> None:
    with st.form("new-key", border=True):
        st.subheader("Create API key", anchor=False)
        name = st.text_input("Name", max_chars=120, placeholder="laptop")
        scope = st.radio("Scope", ["write", "read"], format_func=SCOPES.__getitem__, horizontal=True)
        days = st.number_input("Expires after (days, 0: never)", value=90, step=1)
        if not st.form_submit_button("Create key", type="primary"):
            return
        if refusal := numbers.out_of_range(DAYS, days):
            st.error(refusal)
            return
    try:
        new = NewKey(name=name or "unnamed", scope="read" if scope == "read" else "write", expires_days=days or None)
        created = service.client().create_key(new)
    except CalibrlError as error:
        states.trouble(error)
        return
    st.success("Copy the key now. It is not shown again.")
    st.code(created.key, language=None)


with states.explained():
    me = service.me()
    _who(me)
    if me.admin or Role.ADMIN in me.projects.values():
        st.page_link("app_pages/admin.py", label="Administration", icon=":material/admin_panel_settings:")
    theme.choice()
    notifications.switch()
    _keys(me)
    if me.scope == "write":
        _new_key()
