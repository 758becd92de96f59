"""Views of the dashboard that users save by name."""

import httpx
import pytest

from api.routes import saved_views as routes
from tests.support.api_users import ApiUsers
from tests.support.rest import named, refused, serving

pytestmark = pytest.mark.integration
TABLE = "?list-view=Table&label=team:vision"


def saved(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {view["name"]: view["address"] for view in answer.json()["data"]}


def test_views_are_saved_replaced_and_removed_by_their_user(database: str) -> None:
    with serving() as admin, ApiUsers(admin) as users:
        ann, bob = (users.add(name, {}) for name in ("ann", "bob"))
        assert users.ask(ann, "PUT", "/v1/views/my runs", json={"address": "compare"}).status_code == 200
        second = users.ask(ann, "PUT", "/v1/views/my runs", json={"address": TABLE}).json()
        assert (second["name"], second["address"]) == ("my runs", TABLE)
        assert saved(users.ask(ann, "GET", "/v1/views")) == {"my runs": TABLE}
        assert saved(users.ask(bob, "GET", "/v1/views")) == {}
        refused(users.ask(bob, "DELETE", "/v1/views/my runs"), 404)
        assert users.ask(ann, "DELETE", "/v1/views/my runs").status_code == 204
        assert saved(users.ask(ann, "GET", "/v1/views")) == {}


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "a b", "../x"])
def test_an_address_outside_of_the_dashboard_is_refused(database: str, address: str) -> None:
    with serving() as admin:
        assert named(admin.put("/v1/views/a", json={"address": address})) == ["address"]


def test_a_user_has_a_bounded_number_of_views(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MOST_VIEWS", 1)
    with serving() as admin:
        for address in ("compare", "queue"):  # the second one replaces the first
            assert admin.put("/v1/views/a", json={"address": address}).status_code == 200
        refused(admin.put("/v1/views/b", json={"address": "queue"}), 409)
