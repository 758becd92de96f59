"""Every path needs a key but those that are listed."""

import asyncio

import httpx
import pytest

from api.main import create_app
from api.middleware import OPEN_PATHS


@pytest.mark.parametrize("prefix", ["", "/x"])
def test_a_path_needs_a_key_unless_it_is_listed(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.middleware.STRANGERS_AT_ONCE", 10_000)
    app = create_app()
    paths = set(app.openapi()["paths"]) - OPEN_PATHS | {"/", "/metrics", "/v1", "/v1/nothing", "/healthz/", "//v1/me"}

    async def answers() -> dict[str, int]:
        transport = httpx.ASGITransport(app, root_path=prefix)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return {path: (await client.get(prefix + path)).status_code for path in sorted(paths)}

    assert {path: status for path, status in asyncio.run(answers()).items() if status != 401} == {}
    assert len(paths) > 60
