"""The administration page: who sees it, and what it changes."""

from datetime import UTC, datetime

import pytest
from streamlit.runtime.caching import cache_utils
from streamlit.testing.v1 import AppTest

from calibrl.client import Client
from calibrl.schemas import NewWebhook, Role
from dashboard.reads import service
from tests.support.dashboard.pages import finished, html, open_page, paths, press
from tests.support.dashboard.world import World

pytestmark = pytest.mark.integration


def admin_page(part: str | None = None) -> AppTest:
    return open_page("admin", part=part)


def client() -> Client:
    return service.client()


def links(app: AppTest) -> list[str]:
    return [link.proto.label for link in app.get("page_link")]


def test_only_admins_get_the_page(world: World) -> None:
    assert "No access" in html(admin_page()) and "Administration" not in links(open_page("settings"))
    world.sign_in("rita", {"default": Role.ADMIN}, scope="read")
    assert "No access" in html(admin_page()) and "Administration" not in links(open_page("settings"))
    world.sign_in("ines", {"default": Role.ADMIN})
    assert "Administration" in links(open_page("settings"))
    assert admin_page().segmented_control(key="part").options == [
        "Members",
        "Webhooks",
        "Alert rules",
        "Usage",
        "Audit log",
    ]
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    assert admin_page().segmented_control(key="part").options[-4:] == ["Limits", "Users", "Keys", "New project"]


def test_members_are_added_changed_and_removed(world: World) -> None:
    world.sign_in("bob", {})
    world.sign_in("ines", {"default": Role.ADMIN})
    app = admin_page()
    app.text_input[0].set_value("bob")
    press(app, "Add member")
    assert app.success[0].value == "bob is now member of default\\."
    app.selectbox(key="role-default-bob").set_value(Role.ADMIN).run()
    app.button(key="save-bob").click().run()
    roles = {member.user: member.role for member in client().members("default")}
    assert roles["bob"] is Role.ADMIN
    app.button(key="remove-bob").click().run()
    assert "bob" not in {member.user for member in client().members("default")}
    finished(app).text_input[0].set_value("no-such-user")
    assert "no-such-user" in press(app, "Add member").text[0].value


def test_limits_are_set_and_a_bad_one_is_refused(world: World) -> None:
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    app = admin_page("Limits")
    app.number_input(key="default-max_gpus").set_value(4)
    app.number_input(key="default-weight").set_value(2.5)
    press(app, "Save limits")
    project = client().project("default")
    assert (project.max_gpus, project.weight, project.max_queued) == (4, 2.5, None)
    app.number_input(key="default-weight").set_value(0.0)
    assert "weight: Must be greater than 0" in press(app, "Save limits").text[0].value


def test_a_rerun_of_the_page_asks_for_nothing_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_utils, "TTLCACHE_TIMER", lambda: 0.0)  # cached reads do not expire
    world.sign_in("ines", {"default": Role.ADMIN})
    client().add_webhook("default", NewWebhook(url="https://93.184.215.14/hook"))
    app = admin_page("Webhooks")
    assert "deliveries" in paths(world.requests)
    world.requests.clear()
    finished(app.run())
    assert not paths(world.requests) & {"deliveries", "webhooks"}


def test_a_webhook_shows_its_secret_once(world: World) -> None:
    world.sign_in("ines", {"default": Role.ADMIN})
    app = admin_page("Webhooks")
    app.text_input[0].set_value("https://93.184.215.14/hook")
    app = press(app, "Add webhook")
    assert not app.text, app.text[0].value
    assert app.code[0].value.startswith("whsec_")
    assert not finished(app.run()).code
    assert len(client().webhooks("default")) == 1
    press(app, "Remove webhook")
    assert client().webhooks("default") == []


def test_an_alert_rule_is_added_changed_and_removed(world: World) -> None:
    world.sign_in("ines", {"default": Role.ADMIN})
    app = admin_page("Alert rules")
    app.text_input(key="rule-name-default").set_value("low-entropy")
    app.number_input(key="steps-new-default").set_value(20)
    app.multiselect(key="labels-new-default").set_value(["team"])
    assert press(app, "Add alert rule").text[0].value.startswith("'team': write it as key=value")
    app.multiselect(key="labels-new-default").set_value(["team=a b", "stage: c"])
    press(app, "Add alert rule")
    (rule,) = client().alert_rules("default")
    assert rule.condition.model_dump() == {"type": "below", "metric": "exploration/entropy", "limit": 0.05, "steps": 20}
    labels = {"team": "a b", "stage": "c"}
    assert (rule.name, rule.labels, rule.job_names) == ("low-entropy", labels, None)
    app = admin_page("Alert rules")
    app.selectbox(key=f"kind-{rule.id}").set_value("no_progress").run()
    app.text_input(key=f"names-{rule.id}").set_value("sweep-*")
    press(app, "Save alert rule")
    (rule,) = client().alert_rules("default")
    assert (rule.condition.model_dump(), rule.job_names) == ({"type": "no_progress", "minutes": 30}, "sweep-*")
    assert rule.labels == labels
    app = admin_page("Alert rules")
    app.number_input(key="steps-new-default").set_value(0)
    assert "condition.below.steps" in press(app, "Add alert rule").text[0].value
    press(admin_page("Alert rules"), "Remove alert rule")
    assert client().alert_rules("default") == []


def test_usage_and_audit_log_are_shown(world: World) -> None:
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    client().put_project("default", {"budget_slot_hours": 10})
    assert "of 10" in admin_page("Usage").markdown[0].value
    assert "PUT /v1/projects/{slug}" in html(admin_page("Audit log"))


def test_users_and_their_keys_are_made_and_ended(world: World) -> None:
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    app = admin_page("Users")
    app.text_input[0].set_value("carl")
    press(app, "Add user")
    keys = admin_page("Keys")
    keys.selectbox(key="keys-of").set_value("carl").run()
    keys.number_input[0].set_value(5000)
    assert press(keys, "Create key").error[0].value == "5,000 is out of range: at least 1 and at most 3,660"
    assert client().keys("carl") == []
    keys.number_input[0].set_value(30)
    made = press(keys, "Create key").code[0].value
    (key,) = client().keys("carl")
    assert key.expires_at is not None and 29 < (key.expires_at - datetime.now(UTC)).days + 1 < 31
    with Client(api_key=made) as carl:
        assert carl.me().user == "carl"
    app.button(key="active-carl").click().run()
    assert [user.active for user in client().users() if user.name == "carl"] == [False]


def test_a_project_is_created_and_an_existing_one_is_kept(world: World) -> None:
    world.sign_in("root", {"default": Role.MEMBER}, admin=True)
    app = admin_page("New project")
    app.text_input[0].set_value("default")
    assert "exists already" in press(app, "Create project").text[0].value
    app.text_input[0].set_value("vision")
    press(app, "Create project")
    assert "vision" in {project.slug for project in client().projects()}
