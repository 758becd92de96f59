"""The settings page: keys are revoked on a second thought."""

from typing import Any
from uuid import uuid4

from streamlit.testing.v1 import AppTest

from .conftest import BEGAN, KEY, World
from .test_pages import NAVIGATION, finished


def test_revoking_is_asked_and_the_key_in_use_is_marked(world: World) -> None:
    keys: list[dict[str, Any]] = [
        {
            "id": str(uuid4()), "user": "ann", "name": name, "scope": "write", "prefix": prefix,
            "created_at": BEGAN.isoformat(), "expires_at": None, "last_used_at": None, "revoked_at": None,
        }
        for name, prefix in (("laptop", KEY[:6]), ("other", "calibrl_x"))
    ]  # fmt: skip
    world.answers["GET /v1/keys"] = lambda body: {"data": keys, "has_more": False}
    app = AppTest.from_file(NAVIGATION, default_timeout=30)
    app.switch_page("app_pages/settings.py")
    texts = [each.value for each in finished(app.run()).markdown]
    assert [text for text in texts if text.startswith("valid")] == ["valid, in use here", "valid"]
    assert [text.value[:17] for text in app.caption if "local stack" in text.value] == ["The service's own"]
    assert "Yes, revoke it" in [button.label for button in app.button]
    assert "Revoke" not in [button.label for button in app.button]
