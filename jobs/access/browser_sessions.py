"""Sessions of browsers: a token in place of an API key, for hours."""

import secrets

from sqlalchemy.orm import Session

from calibrl.schemas import TOKEN_PREFIX, CreatedSession
from jobs.access.callers import KEY_BYTES, Caller, key_hash
from jobs.errors import Forbidden, NotFound
from jobs.repository import browser_sessions

SESSION_HOURS = 12.0
MOST_SESSIONS = 100  # of a key; a new one ends the oldest


def begin(session: Session, caller: Caller) -> CreatedSession:
    """Begin a session with the key of the caller. It ends after SESSION_HOURS, and with the key.

    Raises:
        Forbidden: the caller has a token instead of a key. With a token, a session could be renewed without limit.
    """
    if caller.session_id is not None:
        raise Forbidden("A session begins with an API key, not with the token of another session.")
    browser_sessions.remove_expired(session)
    browser_sessions.keep_newest(session, caller.key_id, MOST_SESSIONS - 1)
    token = TOKEN_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    row = browser_sessions.add(session, caller.key_id, sha256=key_hash(token), hours=SESSION_HOURS)
    return CreatedSession(token=token, expires_at=row.expires_at)


def end(session: Session, caller: Caller) -> None:
    """End the session of the caller.

    Raises:
        NotFound: the caller has a key instead of a token.
    """
    if caller.session_id is None:
        raise NotFound("This request has no session: it was sent with an API key.")
    browser_sessions.end(session, caller.session_id)
