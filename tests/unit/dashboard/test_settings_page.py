"""The settings page: keys are revoked on a second thought, and a theme is kept as Streamlit keeps it."""

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import streamlit
from streamlit.testing.v1 import AppTest

from dashboard import theme
from tests.support.waiting import LIMIT_SECONDS

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
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.switch_page("app_pages/settings.py")
    texts = [each.value for each in finished(app.run()).markdown]
    assert [text for text in texts if text.startswith("valid")] == ["valid, current", "valid"]
    assert [text.value[:17] for text in app.caption if "local service" in text.value] == ["Key of the local "]
    assert "Revoke key" in [button.label for button in app.button]
    assert "Revoke" not in [button.label for button in app.button]


def test_a_theme_is_written_where_this_streamlit_reads_it() -> None:
    scripts = Path(streamlit.__file__).with_name("static").glob("static/js/*.js")
    of = re.compile(r"=(\d+),\w+=`stActiveTheme-\$\{window\.location\.pathname\}`")
    (version,) = {found[1] for script in scripts if (found := of.search(script.read_text()))}
    assert f"pathname}}-v{version}`" in Path(theme.__file__).with_suffix(".js").read_text()


def test_a_theme_is_kept_for_every_page() -> None:
    assert set(theme.PATHS) == {"./", *re.findall(r'url_path="(\w+)"', NAVIGATION.read_text())}


def test_a_theme_can_be_chosen(world: World) -> None:
    world.answers["GET /v1/keys"] = lambda body: {"data": [], "has_more": False}
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.switch_page("app_pages/settings.py")
    assert len(finished(app.run()).get("bidi_component")) == 1
