"""Whether the service can work."""

from pydantic import Field

from calibrl.schemas.base import Record


class Health(Record):
    """Whether the service and each thing that it needs can be reached."""

    ok: bool
    checks: dict[str, str] = Field(default_factory=dict, description="ok, or what is wrong, by dependency")
