"""Users with their own keys who call the API under test."""

from typing import Any, Self

import httpx

from tests.support.waiting import LIMIT_SECONDS


class ApiUsers:
    """Asks with any key; as a context manager, so that the connections end. `admin` is the service's own client."""

    def __init__(self, admin: httpx.Client) -> None:
        self._admin = admin
        self._http = httpx.Client(base_url=admin.base_url, timeout=LIMIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def add(self, name: str, roles: dict[str, str], *, admin: bool = False) -> str:
        """A user with these roles by project: its key."""
        assert self._admin.post("/v1/users", json={"name": name, "admin": admin}).status_code == 201
        for project, role in roles.items():
            answer = self._admin.put(f"/v1/projects/{project}/members/{name}", json={"role": role})
            assert answer.status_code == 200, answer.text
        key: str = self._admin.post("/v1/keys", json={"name": "test", "user": name}).json()["key"]
        return key

    def ask(self, key: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        return self._http.request(method, path, headers=headers, **options)

    def send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, params: dict[str, str]
    ) -> httpx.Response:
        """A request as it is, of which no header or byte is improved."""
        return self._http.request(method, path, headers=headers, content=body, params=params or None)

    def get(self, key: str, path: str) -> httpx.Response:
        return self.ask(key, "GET", path)

    def post(self, key: str, path: str, body: Any = None) -> httpx.Response:
        return self.ask(key, "POST", path, json=body)

    def delete(self, key: str, path: str) -> httpx.Response:
        return self.ask(key, "DELETE", path)
