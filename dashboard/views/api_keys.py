"""The API keys of a user: state, revocation, and the form of a new key."""

from datetime import UTC, datetime

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import ApiKey, Me, NewKey, Scope
from dashboard import signin
from dashboard.forms import numbers
from dashboard.forms.changes import change
from dashboard.markup import escape, moment
from dashboard.reads import administration, service

DAYS = {"minimum": 1, "maximum": 3660}  # until a key expires
SCOPES: dict[Scope, str] = {"write": "read and write", "read": "read-only"}


def draw(user: str) -> None:
    """Draw the keys of a user, newest first. A key that can write can also revoke and create keys."""
    me = service.me()
    of_other = None if user == me.user else user
    for key in administration.keys(of_other):
        _key(key, me)
    if me.scope == "write":
        _new_key(of_other)


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at and key.expires_at <= datetime.now(UTC):
        return "expired"
    return f"valid until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"


def _key(key: ApiKey, me: Me) -> None:
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
                change(lambda: service.client().revoke_key(key.id), f"Key {key.name} revoked.")


def _new_key(user: str | None) -> None:
    """Draw the form of a new key. `user`: None for the viewer."""
    with st.form("new-key", border=True):
        st.subheader("Create API key", anchor=False)
        name = st.text_input("Name", max_chars=120, placeholder="laptop")
        scope = st.radio("Scope", list(SCOPES), format_func=SCOPES.__getitem__, horizontal=True)
        days = st.number_input("Expires after (days)", value=90, step=1)
        if not st.form_submit_button("Create key", type="primary"):
            return
        if refusal := numbers.out_of_range(DAYS, days):
            st.error(refusal)
            return
        try:
            new = NewKey(name=name or "unnamed", scope=scope, user=user, expires_days=days)
            created = service.client().create_key(new)
        except CalibrlError as error:
            st.text(str(error))
            return
    administration.forget()
    st.success("Copy the key now. It is not shown again.")
    st.code(created.key, language=None)
