"""Settings of clients and of the local stack. `jobs.settings` adds those of the service.

These two are the only modules that read environment variables.
"""

import os
import platform
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from calibrl.schemas.fault_texts import fault_text


class SettingsError(Exception):
    """A setting is missing or invalid. The message names its environment variable."""


def _with_driver(url: object) -> object:
    # SQLAlchemy takes `postgresql://` for the driver psycopg2, which is not installed.
    for scheme in ("postgresql://", "postgres://"):
        if isinstance(url, str) and url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


# The processes of `calibrl up` have another current folder: relative paths are resolved before they start.
def _absolute_storage(url: str | None) -> str | None:
    return url if url is None or "://" in url else str(Path(url).expanduser().absolute())


def _absolute_roots(roots: str) -> str:
    return ":".join(str(Path(root).absolute()) for root in roots.split(":") if root)


_NETWORK_VARIABLES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def network_variables() -> list[str]:
    """Return the variables of the environment that set proxies and certificates of connections."""
    return [name for name in os.environ if name.upper() in _NETWORK_VARIABLES]


class ClientSettings(BaseSettings):
    """URL and credentials of the service, for the command line, the client and the dashboard."""

    model_config = SettingsConfigDict(env_prefix="CALIBRL_", populate_by_name=True, frozen=True, env_ignore_empty=True)

    api_url: str = Field("http://127.0.0.1:8000", description="URL of the API.")
    api_key: SecretStr | None = Field(None, min_length=1, description="API key of the client.")
    profile: str | None = Field(
        None, description="Name of the service profile that the command line and the client use."
    )
    config_home: Path = Field(
        Path("~/.config"), validation_alias="XDG_CONFIG_HOME", description="Folder that contains calibrl/profiles.toml."
    )
    data_dir: Path = Field(Path("~/.calibrl"), description="Folder of runs, and of uploads if storage is not set.")
    dashboard_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Secret of a link that signs in to the dashboard (/signin?token=...) with CALIBRL_API_KEY.",
    )

    @classmethod
    def read(cls) -> Self:
        """Read the settings from the environment, with `data_dir` as an absolute path.

        Raises:
            SettingsError: a variable has an invalid value.
        """
        try:
            settings = cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            variable = name if name.isupper() else f"CALIBRL_{name.upper()}"
            raise SettingsError(f"{variable}: {fault_text(first)}") from None
        return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


class StackSettings(ClientSettings):
    """Settings that the local stack needs to start the service. Durations are in seconds."""

    database_url: Annotated[str | None, BeforeValidator(_with_driver)] = Field(
        None, validation_alias="DATABASE_URL", repr=False, description="URL of the PostgreSQL database."
    )
    redis_url: str | None = Field(
        None, validation_alias="REDIS_URL", repr=False, description="URL of the Redis server."
    )
    allowed_roots: Annotated[str, AfterValidator(_absolute_roots)] = Field(
        "", description="Folders from which jobs can read models and data, separated by colons. Empty: none."
    )
    storage: Annotated[str | None, AfterValidator(_absolute_storage)] = Field(
        None,
        min_length=1,
        description="Storage of uploads: a folder, or an fsspec URL. None: `storage` in the data folder.",
    )
    dashboard_url: str | None = Field(
        None,
        min_length=8,
        max_length=2000,
        pattern=r"^https?://",
        description="URL at which browsers reach the dashboard, for links in messages. None: no links.",
    )
    lease_seconds: float = Field(
        30, gt=0, description="Seconds without a heartbeat after which a worker loses its job."
    )
    heartbeat_seconds: float = Field(5, gt=0, description="Seconds between heartbeats of a worker.")
    stop_grace_seconds: float = Field(
        20, ge=0, description="Minimum seconds between the request to stop and the kill of a trainer."
    )
    max_stop_grace_seconds: float = Field(
        600,
        ge=0,
        description="Maximum seconds between the request to stop and the kill of a trainer that is paused or moved: "
        "it has 1.5 times the longest of its recent steps, and more while a checkpoint grows.",
    )
    worker_name: str = Field(
        default_factory=platform.node,
        max_length=200,
        pattern=r"^[^/\s][^/]*$",
        description="Name of this machine in the service. Default: the host name.",
    )

    def need(self, name: Literal["database_url", "redis_url", "api_key"]) -> str:
        """Return a setting that this process requires.

        Raises:
            SettingsError: the setting is not set.
        """
        value: str | SecretStr | None = getattr(self, name)
        if value is None:
            variable = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL", "api_key": "CALIBRL_API_KEY"}[name]
            raise SettingsError(f"{variable} is not set")
        return value.get_secret_value() if isinstance(value, SecretStr) else value
