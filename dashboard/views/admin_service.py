"""Administration of the service: users, their keys, and new projects."""

import streamlit as st

from calibrl.schemas import ProjectSettings, User
from dashboard.forms.changes import change
from dashboard.markup import as_markdown
from dashboard.reads import administration, catalogue, service
from dashboard.views import api_keys


def users() -> None:
    """Draw the users of the service, with the changes of each."""
    st.write("A user without a key cannot sign in. Keys of an inactive user are refused.")
    for user in administration.users():
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
    names = [user.name for user in administration.users()]
    api_keys.draw(st.selectbox("User", names, key="keys-of"))


def new_project() -> None:
    """Draw the form of a new project."""
    with st.form("add-project", border=True):
        slug = st.text_input("Name", max_chars=63, help="Lower-case letters, digits and '-'")
        if st.form_submit_button("Create project", type="primary"):
            if slug in catalogue.projects():
                st.text(f"Project {slug} exists already.")
                return
            change(lambda: service.client().put_project(slug, ProjectSettings()), f"Project {slug} created.")
