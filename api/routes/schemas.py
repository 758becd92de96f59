"""JSON Schemas for editors. They need no key: `/openapi.json` shows the same."""

from typing import Any

from fastapi import APIRouter

from calibrl.schemas.spec_schema import job_spec_schema

router = APIRouter(tags=["schemas"])


@router.get("/schemas/job-spec.json")
async def read_job_spec_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job spec, for editors that complete YAML."""
    return job_spec_schema()
