"""Additions to the OpenAPI document: errors by status, headers of answers, servers and descriptions of the tags."""

from typing import Any

from fastapi import FastAPI

from api import openai
from api.errors import MEDIA_TYPE, Problem
from api.plain_schemas import simplify
from api.response_examples import example_of

METHODS = ("get", "put", "post", "patch", "delete")
SERVERS = [{"url": "/", "description": "This service"}]
TAGS = {
    "jobs": "Submit, read, change and control jobs.",
    "runs": "Metrics, samples, logs, checkpoints and results of jobs.",
    "verdicts": "Verdicts of people on completions, and error rates of verifiers.",
    "hours": "Slot-hours by use.",
    "evaluations": "Results of evaluations and their comparison.",
    "data": "Uploaded datasets, and datasets of the Hugging Face hub.",
    "studies": "Studies: many runs that are compared.",
    "queue": "Order of the jobs that have not started.",
    "workers": "Machines that run jobs.",
    "projects": "Projects with their limits, use and members.",
    "webhooks": "Messages to other programs about the jobs of a project.",
    "alert rules": "Conditions on the metrics of jobs that raise alerts.",
    "access": "Users, API keys and the audit log.",
    "views": "Saved views of the dashboard.",
    "live": "Live streams of jobs as server-sent events.",
    "health": "State of the service.",
    "schemas": "JSON Schemas for editors.",
    "OpenAI": "Routes of OpenAI's API for files, fine-tuning jobs, graders and models.",
}
ERRORS = {
    "401": "No key was sent, or the key is wrong, expired or revoked",
    "403": "The role or the key does not permit this",
    "404": "It does not exist, or you cannot see it",
    "409": "Not possible in the present state",
    "412": "It was changed since the state in If-Match",
    "422": "Fields or parameters are not valid",
    "429": "Too many requests",
}
# Parameters that many operations have, and that need no more than this.
PARAMETERS = {
    "job_id": "Id of the job.",
    "study_id": "Id of the study.",
    "dataset_id": "Id of the dataset.",
    "file_id": "Id of the file.",
    "fine_tuning_job_id": "Id of the fine-tuning job.",
    "webhook_id": "Id of the webhook.",
    "rule_id": "Id of the alert rule.",
    "key_id": "Id of the key.",
    "sample_id": "Id of the sampled group.",
    "sha256": "SHA-256 of the image.",
    "seed": "Seed of the run.",
    "name": "Name of the file or histogram, as in its list.",
    "project": "Slug of the project.",
    "user": "Name of the user.",
    "kind": "Kind of the jobs.",
    "limit": "Maximum number of items per page.",
    "order": "Order by time of creation.",
    "question": "Column with the question, if it has another name.",
    "images": "Column with the images, if it has another name.",
    "answer": "Column with the reference answer, if it has another name.",
    "expert": "Column with the expert's answer, if it has another name.",
}
HEADERS: dict[str, Any] = {
    "Location": {"description": "Address of the new object.", "schema": {"type": "string"}},
    "ETag": {"description": "Tag of the fields that can be edited, for If-Match.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}},
    "RateLimit": {
        "description": 'Requests that are left at once (r), and seconds until one more (t): `"user";r=399;t=1`.',
        "schema": {"type": "string"},
    },
    "X-Request-ID": {"description": "Id of the request, as in the log.", "schema": {"type": "string"}},
}


def complete(app: FastAPI) -> None:
    """Let the app describe also what its routes have in common."""
    describe = app.openapi

    def with_common_parts() -> dict[str, Any]:
        document = describe()
        document["servers"] = SERVERS
        used = {
            tag
            for path in document["paths"].values()
            for operation in path.values()
            for tag in operation.get("tags", ())
        }
        document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
        simplify(document)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
                _add_examples(operation, document["components"]["schemas"])
        return document

    app.openapi = with_common_parts  # type: ignore[method-assign]


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in PARAMETERS:
            parameter.setdefault("description", PARAMETERS[parameter["name"]])
    responses = operation["responses"]
    if path.startswith("/v1/"):
        for status in _statuses(path, method, operation):
            content = openai.RESPONSES["default"]["content"] if openai.speaks(path) else _problem(int(status))
            described = {"description": ERRORS[status], "content": content}
            if status == "429":
                described["headers"] = {"Retry-After": HEADERS["Retry-After"]}
            responses.setdefault(status, described)
    for status, response in responses.items():
        if status.startswith("2"):
            headers = response.setdefault("headers", {})
            headers["X-Request-ID"] = HEADERS["X-Request-ID"]
            if path.startswith("/v1/"):
                headers["RateLimit"] = HEADERS["RateLimit"]
            if status == "201" and "Page_" not in str(response.get("content")):
                headers.setdefault("Location", HEADERS["Location"])


def _add_examples(operation: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Add an example to each JSON answer of a success."""
    for status, response in operation["responses"].items():
        content = response.get("content", {}).get("application/json")
        if status.startswith("2") and content and content.get("schema"):
            content["example"] = example_of(content["schema"], definitions)


def _statuses(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    """Return the errors that an operation can have."""
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    conditions = {
        "401": True,
        "403": method != "get" or path.startswith(("/v1/users", "/v1/audit")),
        "404": "{" in path,
        "409": method not in ("get", "put") and not openai.speaks(path),
        "412": "If-Match" in names,
        "422": not openai.speaks(path),
        "429": True,
    }
    return [status for status, holds in conditions.items() if holds]


def _problem(status: int) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": "about:blank" if status in (401, 429) else "urn:calibrl:invalid",
        "title": ERRORS[str(status)],
        "status": status,
        "detail": ERRORS[str(status)],
        "instance": "/v1/jobs",
        "errors": [],
        "request_id": "3f1d2a9c5b7e4f60a1b2c3d4e5f60718",
    }
    if status == 422:
        example["errors"] = [{"field": "steps", "message": "Must be at least 1"}]
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {MEDIA_TYPE: {"schema": schema, "example": example}}
