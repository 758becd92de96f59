"""Settings of every process, read from the environment: the only place that does."""

import platform
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """A setting is missing or wrong; the message names its environment variable."""


def _with_driver(url: object) -> object:
    # SQLAlchemy takes `postgresql://` for the driver psycopg2, which is not installed.
    for scheme in ("postgresql://", "postgres://"):
        if isinstance(url, str) and url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


class Settings(BaseSettings):
    """Addresses, credentials and time limits. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="CALIBRL_", populate_by_name=True, frozen=True, env_ignore_empty=True)

    database_url: Annotated[str | None, BeforeValidator(_with_driver)] = Field(
        None, validation_alias="DATABASE_URL", repr=False
    )
    redis_url: str | None = Field(None, validation_alias="REDIS_URL", repr=False)
    api_key: SecretStr | None = Field(None, min_length=1)
    dashboard_token: SecretStr | None = Field(
        None, min_length=16, description="signs its bearer in to the dashboard (/signin?token=...) with CALIBRL_API_KEY"
    )
    requests_per_second: float = Field(100, gt=0, description="of one key, after requests_at_once")
    requests_at_once: int = Field(400, ge=1, description="requests of one key before requests_per_second counts")
    webhooks_to_private: bool = Field(
        False, description="webhooks may lead to private addresses and speak plain HTTP: for tests, and closed networks"
    )
    api_url: str = "http://127.0.0.1:8000"
    profile: str | None = Field(None, description="the service that the command line and the client ask, by its name")
    config_home: Path = Field(Path("~/.config"), validation_alias="XDG_CONFIG_HOME")
    data_dir: Path = Path("~/.calibrl")
    allowed_roots: str = Field(
        "", description="folders, with a colon between them, that jobs may read models and data from; empty: none"
    )
    allowed_hub: str = Field(
        "*", description="hub data sets that jobs may load, patterns with a comma between them: hiyouga/*,lmms-lab/*"
    )
    storage: str | None = Field(
        None,
        min_length=1,
        description="where uploads are kept: a folder, or an address for fsspec",
    )
    max_upload_bytes: int = Field(2_000_000_000, ge=1, description="of a data set's file")
    lease_seconds: float = Field(30, gt=0, description="a worker silent for so long has lost its job")
    heartbeat_seconds: float = Field(5, gt=0)
    sweep_seconds: float = Field(5, gt=0)
    stop_grace_seconds: float = Field(20, ge=0, description="between asking a trainer to stop and killing it")
    max_attempts: int = Field(3, ge=1, description="lost workers after which a job fails")
    trainer: str = Field("calibrl_core", pattern=r"^[A-Za-z_][\w.]*$")
    quick_starts: bool = Field(True, description="a free slot keeps a trainer that has done its imports waiting")
    preemption: bool = Field(False, description="jobs of a lower priority class give way, at a checkpoint")
    fair_share_half_life_hours: float = Field(24, gt=0, description="after which a used slot-second counts half")
    janitor_hours: float = Field(6, gt=0, le=8760, description="between two rounds of a worker's janitor")
    worker_name: str = Field(default_factory=platform.node, max_length=200, pattern=r"^[^/\s][^/]*$")
    worker_cpu_slots: int = Field(1, ge=0, le=256, description="jobs without a GPU that this machine runs at once")
    worker_gpus: str = Field("all", pattern=r"^(all|none|\d+(,\d+)*)$", description="all, none, or indices: 0,2")
    worker_labels: dict[str, str] = Field(default_factory=dict, description='JSON: {"gpu": "h100"}')

    def need(self, name: Literal["database_url", "redis_url", "api_key"]) -> str:
        """The value of a setting that this process can't do without.

        Raises:
            SettingsError: it is not set.
        """
        value: str | SecretStr | None = getattr(self, name)
        if value is None:
            variable = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL", "api_key": "CALIBRL_API_KEY"}[name]
            raise SettingsError(f"{variable} is not set")
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    @property
    def storage_url(self) -> str:
        """Where uploads are kept, as fsspec takes it."""
        return self.storage or str(self.data_dir / "storage")

    @property
    def closed_folders(self) -> tuple[Path, ...]:
        """What the service keeps: specs name it by job or data set, never by path, also where a root contains it."""
        names = ("runs", "storage", "cache", "uploads", "logs", "postgres", "valkey", "stack.json")
        elsewhere = (Path(self.storage),) if self.storage and self.storage.startswith("/") else ()
        return (*(self.data_dir / name for name in names), *elsewhere)

    def job_dir(self, job_id: UUID) -> Path:
        """Where a job keeps what its attempts leave."""
        return self.data_dir / "runs" / str(job_id)

    def run_dir(self, job_id: UUID, attempt: int) -> Path:
        """Where an attempt keeps its config, event file, log and checkpoints: no other attempt writes there."""
        return self.job_dir(job_id) / f"attempt-{attempt}"

    @classmethod
    def read(cls) -> Self:
        """Settings from the environment, with the data folder as an absolute path.

        Raises:
            SettingsError: a variable has a value that can't be used.
        """
        try:
            settings = cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            variable = name if name.isupper() else f"CALIBRL_{name.upper()}"
            raise SettingsError(f"{variable}: {first['msg']}") from None
        return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


@cache
def get_settings() -> Settings:
    """This process's settings, read once. Tests call `get_settings.cache_clear()` after changing the environment."""
    return Settings.read()
