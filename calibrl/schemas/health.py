"""Health of the service."""

from pydantic import Field

from calibrl.schemas.base import Record


class Health(Record):
    """Health of the service: ok if every dependency can be reached."""

    ok: bool
    version: str | None = Field(None, description="Version of the service.")
    checks: dict[str, str] = Field(default_factory=dict, description="Result per dependency: `ok`, or the problem.")
