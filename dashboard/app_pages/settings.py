"""The viewer's roles, theme and API keys."""

import streamlit as st

from calibrl.schemas import Me
from dashboard import signin, states, theme
from dashboard.forms import changes
from dashboard.reads import catalogue, service
from dashboard.views import api_keys, notifications

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


with states.explained():
    me = service.me()
    _who(me)
    if catalogue.may_administer():
        st.page_link("app_pages/admin.py", label="Administration", icon=":material/admin_panel_settings:")
    theme.choice()
    notifications.switch()
    changes.show_notice()
    st.subheader("API keys", anchor=False)
    st.write("A key is shown once, when it is created. Revoke a key that others may have seen.")
    api_keys.draw(me.user)
