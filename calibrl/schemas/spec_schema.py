"""JSON Schema of a job spec, with which editors complete and check YAML files."""

from typing import Any

from calibrl.schemas.specs import job_spec_adapter

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_spec_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec of any kind of job."""
    return {"$schema": DIALECT, "title": "CalibRL job spec", **job_spec_adapter.json_schema()}
