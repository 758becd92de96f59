"""The settings page: keys are revoked on a second thought, and a theme can be chosen."""

import pytest

from tests.support.dashboard.pages import components, open_page
from tests.support.dashboard.world import World

pytestmark = pytest.mark.integration


def test_revoking_is_asked_and_the_key_in_use_is_marked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_API_KEY", world.key)
    world.add_key("other")
    app = open_page("settings")
    texts = [each.value for each in app.markdown]
    assert [text for text in texts if text.startswith("valid")] == ["valid", "valid, current"]  # the newest is first
    assert [text.value[:17] for text in app.caption if "local service" in text.value] == ["Key of the local "]
    assert [button.label for button in app.button].count("Revoke key") == 1  # not for the service's own key
    assert "Revoke" not in [button.label for button in app.button]


def test_a_theme_can_be_chosen(world: World) -> None:
    assert len(components(open_page("settings"))) == 1
