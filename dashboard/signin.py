"""Sign-in: an API key begins a session of the service, whose token is kept in a cookie.

Without a session there is no access, also to a local stack: its port is open to every user of the machine.
The address that `calibrl up` prints has a secret, which signs its reader in with the stack's own key.
"""

from collections.abc import Mapping
from hmac import compare_digest
from html import escape
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from calibrl.client import CalibrlError, Client
from calibrl.schemas import CreatedSession
from calibrl.settings import ClientSettings

COOKIE = "calibrl_session"
SECURE_COOKIE = f"__Host-{COOKIE}"  # with TLS: browsers accept it from this host only, not from its subdomains
PATH, OUT = "/signin", "/signout"
MAX_BYTES = 4096  # of the form
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # the address may have a token
}


class SignedOut(Exception):
    """The viewer has no session."""


def key() -> str:
    """Return the token of the viewer's session, which clients of the API use as their key.

    Raises:
        SignedOut: there is none.
    """
    return key_of(sent_cookies())


def key_of(cookies: Mapping[str, str]) -> str:
    """Return the token of a session in a request's cookies.

    Raises:
        SignedOut: there is none.
    """
    chosen = cookies.get(SECURE_COOKIE) or cookies.get(COOKIE)
    if not chosen:
        raise SignedOut
    return chosen


def cookie_name(connection: HTTPConnection) -> str:
    """Return the name of the cookie that this request or websocket must have."""
    scheme = connection.headers.get("x-forwarded-proto", connection.url.scheme)
    return SECURE_COOKIE if scheme in ("https", "wss") else COOKIE


def sent_cookies() -> dict[str, str]:
    """Return the cookies of the viewer whose page is being made."""
    return st.context.cookies.to_dict()


def own() -> str:
    """Return the key in the service's settings, such as that of a local stack; empty if there is none."""
    configured = ClientSettings.read().api_key
    return configured.get_secret_value() if configured else ""


def by_cookie() -> bool:
    """Return true if the viewer has signed in here, and so can sign out."""
    return not {COOKIE, SECURE_COOKIE}.isdisjoint(sent_cookies())


async def _show(request: Request) -> Response:
    to, given = _next(request.query_params.get("next")), request.query_params.get("token")
    if given is None:
        return HTMLResponse(_page(to), headers=HEADERS)
    expected = ClientSettings.read().dashboard_token
    if expected is None or not compare_digest(given.encode(), expected.get_secret_value().encode()):
        error = "Invalid or expired link. Open the address that calibrl up printed last."
        return HTMLResponse(_page(to, error), 401, headers=HEADERS)
    return await _signed_in(request, own(), to)


async def _signed_in(request: Request, key: str, to: str) -> Response:
    """Begin a session with a key, and redirect to a page."""
    begun = await run_in_threadpool(_begun, key)
    if isinstance(begun, str):
        return HTMLResponse(_page(to, begun), 401, headers=HEADERS)
    answer = RedirectResponse(to, 303, headers=HEADERS)
    name = cookie_name(request)
    # Lax, not strict: a link in a message leads to the page, not to the sign-in. No GET changes anything.
    options: dict[str, Any] = {"httponly": True, "samesite": "lax", "secure": name == SECURE_COOKIE}
    answer.set_cookie(name, begun.token, expires=begun.expires_at, **options)
    return answer


async def _sign_in(request: Request) -> Response:
    if not _same_origin(request):
        error = "The form was sent from another site. Open the sign-in page again."
        return HTMLResponse(_page("/", error), 403, headers=HEADERS)
    form = await request.form(max_files=0, max_fields=4, max_part_size=MAX_BYTES)
    given, to = str(form.get("key") or "").strip(), _next(str(form.get("next") or "/"))
    return await _signed_in(request, given, to)


async def _sign_out(request: Request) -> Response:
    answer = RedirectResponse(PATH, 303, headers=HEADERS)
    if not _same_origin(request):
        return answer
    name = cookie_name(request)
    refused = await run_in_threadpool(_ended, request.cookies.get(name, ""))
    if refused:
        return HTMLResponse(_page("/", f"Sign-out failed, try again: {refused}"), 503, headers=HEADERS)
    answer.delete_cookie(name, httponly=True, samesite="lax", secure=name == SECURE_COOKIE)
    return answer


routes = [
    Route(PATH, _show, methods=["GET"]),
    Route(PATH, _sign_in, methods=["POST"]),
    Route(OUT, _sign_out, methods=["POST"]),
]


def _begun(key: str) -> CreatedSession | str:
    """Return a new session, or why the key is refused."""
    if not key:
        return "Enter an API key."
    try:
        with Client(api_key=key) as client:
            return client.begin_session()
    except CalibrlError as error:
        return "Invalid, revoked or expired API key" if error.status == 401 else str(error)


def _ended(token: str) -> str | None:
    """End a session. Return why that failed, or None."""
    if not token:
        return None
    try:
        with Client(api_key=token) as client:
            client.end_session()
    except CalibrlError as error:
        return None if error.status in (401, 404) else str(error)
    return None


def _same_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _next(path: str | None) -> str:
    """The page to open after sign-in: a path of this site."""
    return path if path and path.startswith("/") and path[1:2] not in ("/", "\\") else "/"


def _page(to: str, error: str | None = None) -> str:
    message = f'<p class="wrong" role="alert">{escape(error)}</p>' if error else ""
    return PAGE.replace("{message}", message).replace("{next}", escape(to, quote=True))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Sign in - CalibRL</title><style>
:root{color-scheme:light dark}
body{margin:0;min-height:100vh;display:grid;place-items:center;font:16px/1.5 system-ui,sans-serif;
  background:light-dark(#f6f7f9,#0e1117);color:light-dark(#1b1f24,#f0f2f6)}
main{box-sizing:border-box;width:min(28rem,92vw);padding:2rem;border-radius:.75rem;background:light-dark(#fff,#1a1d24);
  border:1px solid light-dark(#d9dde3,#31343c)}
h1{font-size:1.3rem;margin:0 0 .25rem} p{margin:.25rem 0 1rem;opacity:.85}
label{display:block;font-weight:600;margin-bottom:.35rem}
input{box-sizing:border-box;width:100%;padding:.6rem;font:inherit;border-radius:.4rem;
  border:1px solid light-dark(#8a919c,#7a808a);background:transparent;color:inherit}
button{margin-top:1rem;width:100%;padding:.6rem;font:inherit;font-weight:600;border:0;border-radius:.4rem;
  background:#1f5fbf;color:#fff;cursor:pointer}
button:focus-visible,input:focus-visible{outline:3px solid light-dark(#1f5fbf,#8ab4f8);outline-offset:2px}
.wrong{color:light-dark(#a3261c,#ff8a80);opacity:1}
</style></head><body><main><h1>Sign in to CalibRL</h1>
<p>Sign in with an API key. Ask your admin, or run <code>calibrl keys create NAME</code>.</p>{message}
<form method="post" action="/signin"><input type="hidden" name="next" value="{next}">
<label for="key">API key</label><input id="key" name="key" type="password" autocomplete="current-password" required
  autofocus spellcheck="false"><button type="submit">Sign in</button></form></main></body></html>"""
