"""Administration of the service: users, their keys, and new projects."""

from collections.abc import Callable

import streamlit as st
from pydantic import ValidationError

from calibrl.client import CalibrlError
from calibrl.schemas import ApiKey, NewKey, ProjectSettings, User
from calibrl.schemas.fault_texts import fault_text
from dashboard.markup import as_markdown, moment
from dashboard.reads import catalogue, service

NOTICE = "admin-notice"  # session key: what the last change did


def show_notice() -> None:
    """Draw what the last change did, once."""
    if notice := st.session_state.pop(NOTICE, None):
        st.success(as_markdown(notice))


def change(act: Callable[[], object], done: str) -> None:
    """Make a change and run the page again, or show why it was refused."""
    try:
        act()
    except ValidationError as error:
        for fault in error.errors():
            st.text(f"{'.'.join(map(str, fault['loc']))}: {fault_text(fault)}")
        return
    except CalibrlError as error:
        st.text(str(error))
        return
    catalogue.forget_access()
    st.session_state[NOTICE] = done
    st.rerun()


def users() -> None:
    """Draw the users of the service, with the changes of each."""
    st.write("A user without a key cannot sign in. Keys of an inactive user are refused.")
    for user in service.client().users():
        _user(user)
    with st.form("add-user", border=True, clear_on_submit=True):
        st.subheader("Add user", anchor=False)
        name = st.text_input("Name", max_chars=63, help="Lower-case letters, digits, '.', '_' and '-'")
        admin = st.checkbox("Admin of the service: all rights in all projects")
        if st.form_submit_button("Add user", type="primary"):
            change(lambda: service.client().add_user(name, admin=admin), f"User {name} added. Create a key under Keys.")


def _user(user: User) -> None:
    name, state, role, switch = st.columns([3, 2, 2, 2], vertical_alignment="center")
    name.write(f"**{as_markdown(user.name)}**")
    state.write("active" if user.active else "inactive")
    role.write("admin of the service" if user.admin else "")
    if user.name == service.me().user:  # else the viewer could lose access
        switch.caption("this is you")
        return
    with switch.popover("Change"):
        text = "Deactivate" if user.active else "Activate"
        if st.button(text, key=f"active-{user.name}"):
            change(
                lambda: service.client().change_user(user.name, active=not user.active),
                f"User {user.name} is now {'inactive' if user.active else 'active'}.",
            )
        if st.button("Take away admin rights" if user.admin else "Make admin of the service", key=f"admin-{user.name}"):
            change(
                lambda: service.client().change_user(user.name, admin=not user.admin),
                f"User {user.name} is {'no longer' if user.admin else 'now'} an admin of the service.",
            )


def keys() -> None:
    """Draw the keys of a user, with a form for a new one."""
    names = [user.name for user in service.client().users()]
    user = st.selectbox("User", names, key="keys-of")
    for key in service.client().keys(user):
        _key(key)
    with st.form("add-key", border=True):
        st.subheader("Create key", anchor=False)
        name = st.text_input("Name", max_chars=120, placeholder="laptop")
        days = st.number_input("Expires after (days, 0: never)", 0, 3660, 90)
        created = st.form_submit_button("Create key", type="primary")
    if created:
        try:
            new = service.client().create_key(NewKey(name=name or "unnamed", user=user, expires_days=days or None))
        except CalibrlError as error:
            st.text(str(error))
            return
        st.success("Copy the key now. It is not shown again.")
        st.code(new.key, language=None)


def _key(key: ApiKey) -> None:
    name, state, action = st.columns([3, 3, 1], vertical_alignment="center")
    name.write(f"**{as_markdown(key.name)}** {as_markdown(key.prefix)}… {key.scope}")
    used = f"used {moment(key.last_used_at)}" if key.last_used_at else "never used"
    state.write(f"revoked {moment(key.revoked_at)}" if key.revoked_at else used)
    if key.revoked_at is None and action.button("Revoke", key=f"revoke-{key.id}"):
        change(lambda: service.client().revoke_key(key.id), f"Key {key.name} revoked.")


def new_project() -> None:
    """Draw the form of a new project."""
    with st.form("add-project", border=True):
        slug = st.text_input("Name", max_chars=63, help="Lower-case letters, digits and '-'")
        if st.form_submit_button("Create project", type="primary"):
            if slug in catalogue.projects():
                st.text(f"Project {slug} exists already.")
                return
            change(lambda: service.client().put_project(slug, ProjectSettings()), f"Project {slug} created.")
