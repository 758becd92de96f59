"""Who is signed in, their roles, and their keys."""

from datetime import UTC, datetime

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import ApiKey, Me, NewKey
from dashboard import signin, states, theme
from dashboard.markup import escape, moment
from dashboard.reads import data

BUTTON = (
    "padding:.35rem .9rem;border-radius:.5rem;border:1px solid rgba(125,131,140,.5);background:none;color:inherit;"
    "font:inherit;cursor:pointer"
)


def _who(me: Me) -> None:
    st.title("Settings", anchor=False)
    with st.container(border=True):
        st.subheader(me.user, anchor=False)
        if me.admin:
            st.write("An admin of the service: may do everything in every project.")
        elif me.projects:
            st.table({"Project": list(me.projects), "Role": [role.value for role in me.projects.values()]})
        else:
            st.write("Belongs to no project yet: an admin of one can add you.")
        if me.scope == "read":
            st.caption("This key may only read.")
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
    st.subheader("Your keys", anchor=False)
    st.write("A key is shown once, when it is made. Revoke one that may have been seen by others.")
    mine = data.client().keys()
    for key in mine:
        name, state, used, action = st.columns([3, 2, 2, 1], vertical_alignment="center")
        name.html(f"<b>{escape(key.name)}</b> <span style='opacity:.75'>{escape(key.prefix)}… {key.scope}</span>")
        used_now = bool(key.prefix) and signin.key().startswith(key.prefix)
        if key.prefix and signin.own().startswith(key.prefix):
            name.caption("The service's own, for those who have not signed in here. A local stack makes it for itself.")
        state.write(f"{_state(key)}, in use here" if used_now else _state(key))
        used.write(f"used {moment(key.last_used_at)}" if key.last_used_at else "never used")
        usable = me.scope == "write" and key.revoked_at is None
        if usable:
            with action.popover("Revoke"):
                st.write(
                    f"Whoever uses it is signed out at once{', you too: it is the key in use' if used_now else ''}."
                )
                if st.button("Yes, revoke it", key=f"revoke-{key.id}", type="primary"):
                    data.client().revoke_key(key.id)
                    st.rerun()


def _new_key() -> None:
    with st.form("new-key", border=True):
        st.subheader("A new key", anchor=False)
        name = st.text_input("What it is for", max_chars=120, placeholder="laptop")
        scope = st.radio("It may", ["write", "read"], captions=["do all that you may", "only read"], horizontal=True)
        days = st.number_input("Days until it expires (0: never)", 0, 3660, 90)
        if not st.form_submit_button("Make it", type="primary"):
            return
    try:
        wanted = NewKey(name=name or "unnamed", scope="read" if scope == "read" else "write", expires_days=days or None)
        made = data.client().create_key(wanted)
    except CalibrlError as error:
        states.trouble(error)
        return
    st.success("Copy it now: it is shown this once.")
    st.code(made.key, language=None)


with states.explained():
    me = data.me()
    _who(me)
    theme.choice()
    _keys(me)
    if me.scope == "write":
        _new_key()
