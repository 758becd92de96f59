"""Settings of all processes. The only module that reads environment variables."""

import platform
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """A setting is missing or invalid. The message names its environment variable."""


def _with_driver(url: object) -> object:
    # SQLAlchemy takes `postgresql://` for the driver psycopg2, which is not installed.
    for scheme in ("postgresql://", "postgres://"):
        if isinstance(url, str) and url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


class Settings(BaseSettings):
    """URLs, credentials and time limits. Durations are in seconds unless the name has another unit."""

    model_config = SettingsConfigDict(env_prefix="CALIBRL_", populate_by_name=True, frozen=True, env_ignore_empty=True)

    database_url: Annotated[str | None, BeforeValidator(_with_driver)] = Field(
        None, validation_alias="DATABASE_URL", repr=False, description="URL of the PostgreSQL database."
    )
    redis_url: str | None = Field(
        None, validation_alias="REDIS_URL", repr=False, description="URL of the Redis server."
    )
    api_key: SecretStr | None = Field(None, min_length=1, description="API key of the client.")
    dashboard_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Secret of a link that signs in to the dashboard (/signin?token=...) with CALIBRL_API_KEY.",
    )
    requests_per_second: float = Field(
        100, gt=0, description="Requests per second and key, once requests_at_once is used up."
    )
    requests_at_once: int = Field(
        400, ge=1, description="Burst of requests per key before requests_per_second applies."
    )
    webhooks_to_private: bool = Field(
        False, description="Allow webhooks to private addresses and over plain HTTP, for tests and closed networks."
    )
    api_url: str = Field("http://127.0.0.1:8000", description="URL of the API.")
    profile: str | None = Field(
        None, description="Name of the service profile that the command line and the client use."
    )
    config_home: Path = Field(
        Path("~/.config"), validation_alias="XDG_CONFIG_HOME", description="Folder that contains calibrl/profiles.toml."
    )
    data_dir: Path = Field(Path("~/.calibrl"), description="Folder of runs, and of uploads if storage is not set.")
    allowed_roots: str = Field(
        "", description="Folders from which jobs can read models and data, separated by colons. Empty: none."
    )
    allowed_hub: str = Field(
        "*", description="Hub datasets that jobs can load, as patterns separated by commas: hiyouga/*,lmms-lab/*."
    )
    storage: str | None = Field(
        None,
        min_length=1,
        description="Storage of uploads: a folder, or an fsspec URL. None: `storage` in the data folder.",
    )
    max_upload_bytes: int = Field(2_000_000_000, ge=1, description="Maximum size of a dataset file in bytes.")
    lease_seconds: float = Field(
        30, gt=0, description="Seconds without a heartbeat after which a worker loses its job."
    )
    heartbeat_seconds: float = Field(5, gt=0, description="Seconds between heartbeats of a worker.")
    sweep_seconds: float = Field(5, gt=0, description="Seconds between sweeps of a worker.")
    stop_grace_seconds: float = Field(
        20, ge=0, description="Seconds between the request to stop and the kill of a trainer."
    )
    max_attempts: int = Field(3, ge=1, description="Number of lost workers after which a job fails.")
    trainer: str = Field("calibrl_core", pattern=r"^[A-Za-z_][\w.]*$", description="Python package of the trainer.")
    quick_starts: bool = Field(True, description="Keep a trainer with finished imports waiting on each free slot.")
    preemption: bool = Field(False, description="Let jobs preempt jobs of a lower priority class, at a checkpoint.")
    fair_share_half_life_hours: float = Field(
        24, gt=0, description="Hours after which a used slot-second counts half in fair share."
    )
    janitor_hours: float = Field(6, gt=0, le=8760, description="Hours between two runs of a worker's janitor.")
    worker_name: str = Field(
        default_factory=platform.node,
        max_length=200,
        pattern=r"^[^/\s][^/]*$",
        description="Name of this machine in the service. Default: the host name.",
    )
    worker_cpu_slots: int = Field(
        1, ge=0, le=256, description="Number of jobs without a GPU that this machine runs at the same time."
    )
    worker_gpus: str = Field(
        "all",
        pattern=r"^(all|none|\d+(,\d+)*)$",
        description="GPUs that this worker uses: all, none, or indices such as 0,2.",
    )
    worker_labels: dict[str, str] = Field(
        default_factory=dict, description='Labels of this machine as JSON, such as {"gpu": "h100"}.'
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

    @property
    def storage_url(self) -> str:
        """Location of uploads as an fsspec URL."""
        return self.storage or str(self.data_dir / "storage")

    @property
    def closed_folders(self) -> tuple[Path, ...]:
        """Folders of the service. Specs name their content by job or dataset, never by path, even inside an allowed
        root."""
        names = ("runs", "storage", "cache", "uploads", "logs", "postgres", "valkey", "stack.json")
        elsewhere = (Path(self.storage),) if self.storage and self.storage.startswith("/") else ()
        return (*(self.data_dir / name for name in names), *elsewhere)

    def job_dir(self, job_id: UUID) -> Path:
        """Return the folder of a job, which contains the folders of its attempts."""
        return self.data_dir / "runs" / str(job_id)

    def run_dir(self, job_id: UUID, attempt: int) -> Path:
        """Return the folder of an attempt: config, event file, log and checkpoints. No other attempt writes there."""
        return self.job_dir(job_id) / f"attempt-{attempt}"

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
            raise SettingsError(f"{variable}: {first['msg']}") from None
        return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


@cache
def get_settings() -> Settings:
    """Return the settings of this process, read once. Tests call `get_settings.cache_clear()` after a change of the
    environment."""
    return Settings.read()
