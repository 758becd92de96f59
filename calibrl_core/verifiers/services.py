"""The services that rewards of a run can use. An administrator lists them; a spec only names them."""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from calibrl_core.settings.base import StrictSettings


class RewardServiceError(ValueError):
    """A service that a run cannot use, or that is not configured. The message has the remedy."""


class Endpoint(StrictSettings):
    """A server of models with OpenAI's interface."""

    url: str = Field(pattern=r"^https?://", max_length=1024, description="URL up to the version: http://judge:8000/v1.")
    key: SecretStr | None = Field(None, description="Key that requests send. None: none.")
    model: str | None = Field(
        None, min_length=1, max_length=200, description="Model of rewards that name none, such as of embeddings."
    )
    requests_at_once: int = Field(8, ge=1, le=256, description="Maximum requests at the same time per trainer process.")


class Services(StrictSettings):
    """Reward services and endpoints of models."""

    hosts: tuple[str, ...] = Field(
        (),
        description="Hosts of http rewards: names (`rewards.example.org`, `10.0.0.7:8080`), which can have private "
        "addresses and plain HTTP, and patterns (`*.example.org`), which need https and public addresses.",
    )
    secret: SecretStr | None = Field(None, description="Secret that signs requests of http rewards: whsec_...")
    endpoints: Mapping[str, Endpoint] = Field(default_factory=dict, description="Endpoints of judges by name.")

    @classmethod
    def read(cls, file: Path | None) -> "Services":
        """Return the services in a JSON file; none without a file.

        Raises:
            RewardServiceError: the file cannot be read.
        """
        try:
            return cls() if file is None else cls.model_validate_json(file.read_bytes())
        except (OSError, ValueError) as error:
            raise RewardServiceError(f"{file} cannot be read as reward services: {error}") from error

    def write(self, file: Path) -> None:
        """Write the services with their secrets to a file that only its owner can read."""
        file.touch(mode=0o600)
        file.write_text(json.dumps(self.model_dump(mode="python"), default=_revealed))

    def is_private(self, url: str) -> bool:
        """Return if a URL can have a private address: an administrator listed its host by name.

        Raises:
            RewardServiceError: it cannot be used at all.
        """
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise RewardServiceError("the URL must be http://HOST or https://HOST, without a user name")
        named = {host, f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"}
        if named & {each.lower() for each in self.hosts}:
            return True
        if not any(fnmatchcase(host, each.lower()) for each in self.hosts if "*" in each):
            raise RewardServiceError(f"the host {host} is not allowed here: an administrator lists it in reward_hosts")
        if parts.scheme != "https":
            raise RewardServiceError(
                f"the URL of {host} must begin with https://, as reward_hosts does not list it by name"
            )
        return False

    def endpoint(self, name: str) -> Endpoint:
        """Return the endpoint of a name.

        Raises:
            RewardServiceError: there is none.
        """
        if name not in self.endpoints:
            known = ", ".join(sorted(self.endpoints)) or "none"
            raise RewardServiceError(
                f"there is no endpoint {name!r} here (there is: {known}): an administrator adds it to reward_endpoints"
            )
        return self.endpoints[name]


def _revealed(value: object) -> str:
    assert isinstance(value, SecretStr)
    return value.get_secret_value()
