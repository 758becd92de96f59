"""Ids with OpenAI's prefixes, and names of models."""

import re
from typing import Any, Literal
from uuid import UUID

from calibrl.schemas import CheckpointChoice
from jobs.errors import NotFound

Kind = Literal["file", "ftjob"]
CALLED: dict[Kind, str] = {"file": "file", "ftjob": "fine-tuning job"}
_FINE_TUNED = re.compile(r"(?:ft:.*:|ftjob-)([0-9a-f-]{32,36})(?::step-(\d{1,9}))?")


def id_of(kind: Kind, uuid: UUID) -> str:
    """Return `ftjob-` or `file-` and 32 hexadecimal digits."""
    return f"{kind}-{uuid.hex}"


def uuid_of(kind: Kind, text: str) -> UUID:
    """Return the UUID of an id, or of a plain UUID.

    Raises:
        NotFound: the text is neither.
    """
    try:
        return UUID(text.removeprefix(f"{kind}-"))
    except ValueError:
        raise not_found(kind, text) from None


def not_found(kind: Kind, text: str) -> NotFound:
    """Return the error for an id that does not exist or is not visible to the caller."""
    return NotFound(f"There is no {CALLED[kind]} {text!r}.")


def fine_tuned(model: dict[str, Any], suffix: str, job_id: UUID, step: int | None = None) -> str:
    """Return the name of the model of a job, or of its checkpoint at a step: `ft:tiny-vlm:digits:<job>:step-100`."""
    parts = ["ft", model_name(model).replace(":", "-"), suffix, job_id.hex]
    return ":".join(parts if step is None else [*parts, f"step-{step}"])


def origin(name: str) -> tuple[UUID, CheckpointChoice] | None:
    """Return the job and the checkpoint that the name of a model refers to, or None for other names."""
    match = _FINE_TUNED.fullmatch(name)
    if match is None:
        return None
    try:
        job_id = UUID(match[1])
    except ValueError:
        return None
    return job_id, "best" if match[2] is None else int(match[2])


def model_name(model: dict[str, Any]) -> str:
    """Return the name of the model of a spec."""
    if "from_job" not in model:
        return str(model.get("builtin") or model.get("path") or model["hub"])
    job = id_of("ftjob", UUID(model["from_job"]))
    return f"{job}:step-{model['checkpoint']}" if isinstance(model["checkpoint"], int) else job
