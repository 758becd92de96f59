"""Settings of the service's processes: those of `calibrl.settings` and the service's own."""

from functools import cache
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import Field, SecretStr

from calibrl.settings import StackSettings
from calibrl_core.verifiers.sandbox import SandboxPolicy
from calibrl_core.verifiers.services import Endpoint


class Settings(StackSettings):
    """Time limits, quotas and permissions of the service. Durations are in seconds unless the name has another unit."""

    api_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Key of the first admin, at least 32 characters, such as those of `openssl rand -hex 24`.",
    )
    requests_per_second: float = Field(
        100, gt=0, description="Requests per second and user, once requests_at_once is used up."
    )
    requests_at_once: int = Field(
        400, ge=1, description="Burst of requests per user before requests_per_second applies."
    )
    allowed_origins: str = Field(
        "",
        description="Sites whose pages can call the API from a browser, separated by commas, such as "
        "https://lab.example.com. Empty: none.",
    )
    webhooks_to_private: bool = Field(
        False, description="Allow webhooks to private addresses and over plain HTTP, for tests and closed networks."
    )
    smtp_host: str | None = Field(
        None, min_length=1, max_length=253, description="Mail server for messages by e-mail. None: no e-mail."
    )
    smtp_port: int = Field(587, ge=1, le=65_535, description="Port of the mail server.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="Encryption of the connection to the mail server; its certificate is verified. none: neither "
        "encryption nor sign-in, for a server on the same machine.",
    )
    smtp_user: str | None = Field(None, min_length=1, description="User name at the mail server. None: no sign-in.")
    smtp_password: SecretStr | None = Field(None, min_length=1, description="Password at the mail server.")
    mail_from: str | None = Field(
        None, max_length=320, pattern=r"^[^\s@<>]+@[^\s@<>]+$", description="Sender of e-mail: an address."
    )
    mail_domains: str = Field(
        "",
        description="Domains to whose addresses the service sends e-mail, separated by commas: lab.example.com. Empty: "
        "none.",
    )
    allowed_hub: str = Field(
        "*", description="Hub datasets that jobs can load, as patterns separated by commas: hiyouga/*,lmms-lab/*."
    )
    allowed_hub_models: str = Field(
        "",
        description="Hub models that jobs can name, as patterns separated by commas: Qwen/*,google/gemma-*. Workers "
        "download them into the data folder. Empty: none.",
    )
    hub_tokens: dict[str, SecretStr] = Field(
        default_factory=dict,
        repr=False,
        description='Tokens for hub models, by project, as JSON: {"default": "hf_..."}. A trainer never gets them.',
    )
    hub_url: str = Field(
        "https://huggingface.co",
        validation_alias="HF_ENDPOINT",
        pattern=r"^https?://",
        description="URL of the hub of models, or of a mirror of it.",
    )
    reward_hosts: dict[str, str] = Field(
        default_factory=dict,
        description="Hosts of http rewards by project, as JSON; `*` is every project. Names and patterns, separated by "
        'commas: {"*": "rewards.example.org,10.0.0.7:8080,*.example.com"}. A host listed by name may have a private '
        "address and plain HTTP; a pattern needs https and public addresses.",
    )
    reward_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        repr=False,
        description="Secrets that sign the requests of http rewards, by project, as JSON; `*` is every other project: "
        '{"default": "whsec_..."}.',
    )
    reward_endpoints: dict[str, dict[str, Endpoint]] = Field(
        default_factory=dict,
        repr=False,
        description="Servers of models that judge, by project and name, as JSON; `*` is every project: "
        '{"*": {"local": {"url": "http://judge:8000/v1", "key": "sk-..."}}}. A spec names them, and never has a key.',
    )
    max_upload_bytes: int = Field(2_000_000_000, ge=1, description="Maximum size of a dataset file in bytes.")
    data_cache_bytes: int = Field(
        500_000_000_000,
        ge=0,
        description="Bytes of converted datasets that the data folder keeps for later jobs. Those in use stay.",
    )
    sweep_seconds: float = Field(5, gt=0, description="Seconds between sweeps of a worker.")
    max_attempts: int = Field(3, ge=1, description="Number of lost workers after which a job fails.")
    trainer: str = Field("calibrl_core", pattern=r"^[A-Za-z_][\w.]*$", description="Python package of the trainer.")
    quick_starts: bool = Field(True, description="Keep a trainer with finished imports waiting on each free slot.")
    job_variables: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*(,[A-Za-z_][A-Za-z0-9_]*)*)?$",
        description="Variables of the worker that trainers get in addition to those of the system, of Python and of "
        "the libraries of a trainer, separated by commas: WANDB_MODE,MY_CACHE. Jobs can read them: list no secrets.",
    )
    preemption: bool = Field(False, description="Let jobs preempt jobs of a lower priority class, at a checkpoint.")
    fair_share_half_life_hours: float = Field(
        24, gt=0, description="Hours after which a used slot-second counts half in fair share."
    )
    gpu_hour_price: float | None = Field(
        None, ge=0, description="Price of one GPU for one hour, for the hours of jobs and projects. None: no price."
    )
    cpu_slot_hour_price: float | None = Field(
        None, ge=0, description="Price of one CPU slot for one hour, for jobs without a GPU. None: no price."
    )
    currency: str = Field("USD", min_length=1, max_length=8, description="Currency of the prices.")
    janitor_hours: float = Field(6, gt=0, le=8760, description="Hours between two runs of a worker's janitor.")
    audit_days: int = Field(730, ge=1, le=36500, description="Days after which entries of the audit log are removed.")
    sandbox_packages: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*(,[A-Za-z0-9][A-Za-z0-9._-]*)*)?$",
        description="Installed packages that functions of users (rewards of type python) can import, with all that "
        "these need, separated by commas: numpy,sympy,mpmath. Empty: the standard library only.",
    )
    functions_without_sandbox: bool = Field(
        False,
        description="Run functions of users in plain processes on machines without a sandbox. They can read what the "
        "worker can read.",
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

    worker_address: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="IPv4 address or host name of this machine for the other machines of a job. None: the address by "
        "which it reaches the database.",
    )

    @property
    def sandbox(self) -> SandboxPolicy:
        """Permissions of functions of users."""
        packages = tuple(filter(None, self.sandbox_packages.split(",")))
        return SandboxPolicy(packages=packages, plain_processes=self.functions_without_sandbox)

    @property
    def storage_url(self) -> str:
        """Location of uploads as an fsspec URL."""
        return self.storage or str(self.data_dir / "storage")

    @property
    def closed_folders(self) -> tuple[Path, ...]:
        """Folders of the service. Specs name their content by job or dataset, never by path, even inside an allowed
        root."""
        folders = ("runs", "storage", "cache", "uploads", "logs", "postgres", "valkey")
        names = (*folders, "stack.json", "identity.json", "database.json", "standby.log")
        elsewhere = (Path(self.storage),) if self.storage and self.storage.startswith("/") else ()
        return (*(self.data_dir / name for name in names), *elsewhere)

    def job_dir(self, job_id: UUID) -> Path:
        """Return the folder of a job, which contains the folders of its attempts."""
        return self.data_dir / "runs" / str(job_id)

    def run_dir(self, job_id: UUID, attempt: int) -> Path:
        """Return the folder of an attempt: config, event file, log and checkpoints. No other attempt writes there."""
        return self.job_dir(job_id) / f"attempt-{attempt}"


@cache
def get_settings() -> Settings:
    """Return the settings of this process, read once. Tests call `get_settings.cache_clear()` after a change of the
    environment."""
    return Settings.read()
