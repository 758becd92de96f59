"""Pipelines: several jobs that are submitted together, where later jobs name earlier ones."""

from typing import Annotated, Any

from pydantic import Field

from calibrl_core.settings.base import StrictSettings

MAX_PIPELINE_JOBS = 32
MAX_FIELDS = 100  # of a spec


class Pipeline(StrictSettings):
    """Jobs that are submitted together: all of them, or none."""

    jobs: tuple[Annotated[dict[str, Any], Field(max_length=MAX_FIELDS)], ...] = Field(
        min_length=1,
        max_length=MAX_PIPELINE_JOBS,
        description="Specs of jobs with different names. In `from_job` and `depends_on`, `@name` is the job of that "
        "name earlier in the list.",
    )
