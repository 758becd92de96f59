"""HEAD of everything that can be read, and the complete `Allow` of an address."""

from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def allowed(scope: Scope) -> list[str]:
    """Return the methods that the address of a request takes."""
    found = [method for method in METHODS if _takes(scope, method)]
    return [method for method in METHODS if method in found or (method == "HEAD" and "GET" in found)]


def _takes(scope: Scope, method: str) -> bool:
    asked = {**scope, "method": method}
    return any(route.matches(asked)[0] is Match.FULL for route in scope["app"].router.routes)


class HeadRequests:
    """Answers HEAD as GET without the body, where an endpoint does not do so itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or _takes(scope, "HEAD"):
            await self._app(scope, receive, send)
            return
        ended = False

        async def send_without_body(message: Message) -> None:
            nonlocal ended
            if message["type"] != "http.response.body":
                await send(message)
                return
            if not ended:
                ended = True
                await send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                raise OSError("a stream ends after its headers")

        try:
            await self._app({**scope, "method": "GET"}, receive, send_without_body)
        except (ClientDisconnect, OSError):
            if not ended:
                raise
