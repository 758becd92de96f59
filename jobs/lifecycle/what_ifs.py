"""The spec of a what-if, made from the training that it looks at."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from calibrl.schemas import JobCheckpoint, WhatIfRequest, find_algorithm
from calibrl.schemas.fault_texts import fault_text
from calibrl_core.algorithms import AlgorithmSettings
from calibrl_core.settings.sampling import RolloutSettings
from calibrl_core.variants.settings import changed_algorithm
from jobs.errors import Conflict, FieldError, Invalid
from jobs.repository import checkpoints, jobs
from jobs.specs import checks
from jobs.specs.kind_names import KIND_NAMES

NAME_LENGTH = 111  # maximum length before -what-if is appended
_OF_ENGINES = {"engine", "server_gpus", "tensor_parallel", "max_staleness"}  # settings of sampling for other engines


def what_if_spec(session: Session, job_id: UUID, request: WhatIfRequest) -> dict[str, Any]:
    """Return the spec of a what-if of a training, to be checked like any other: one process, and the trainer's own
    engine.

    Raises:
        NotFound: no such job.
        Conflict: the job is no training.
        Invalid: the job has no such checkpoint, or a variant is not valid.
    """
    job = jobs.get(session, job_id)
    if job.kind != "train":
        raise Conflict(f"Job {job_id} is {KIND_NAMES[job.kind]}: only the updates of a training can be compared.")
    row = checkpoints.choose(session, job_id, request.checkpoint)
    if row is None:
        have = [one.step for one in checkpoints.of_job(session, job_id)]
        chosen = JobCheckpoint(from_job=job_id, checkpoint=request.checkpoint)
        raise Invalid("There is nothing to compare.", (FieldError("checkpoint", checks.no_checkpoint(chosen, have)),))
    return {
        **in_one_process(job.spec),
        "kind": "what_if",
        "name": request.name or f"{job.name[:NAME_LENGTH]}-what-if",
        "validation": None,
        "checkpoint": {"from_job": str(job_id), "checkpoint": row.step},
        "update": request.update,
        "variants": [
            {"name": name, "algorithm": algorithm.model_dump(mode="json")}
            for name, algorithm in _variants(job.spec["algorithm"], request.variants)
        ],
    }


def in_one_process(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of a training for a job that takes steps of it again, in one process with the trainer's own
    engine.
    """
    sampling = {
        name: value
        for name, value in spec["rollout"].items()
        if name in RolloutSettings.model_fields and name not in _OF_ENGINES
    }
    return {
        **spec,
        "depends_on": [],
        "limits": {},
        "resources": {**spec["resources"], "machines": 1, "gpus": min(1, spec["resources"]["gpus"])},
        "rollout": sampling,
        "parallel": "ddp",
        "shard_size": None,
        "cpu_offload": False,
        "data_workers": 0,
    }


def _variants(
    own: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]] | None
) -> Iterator[tuple[str, AlgorithmSettings]]:
    """Yield the algorithm of each variant.

    Raises:
        Invalid: a change is not valid.
    """
    kind = find_algorithm(own["type"])
    if changes is None:
        changes = kind.model_validate(own).default_variants if kind else {}
    for name, change in changes.items():
        try:
            yield name, changed_algorithm(own, change)
        except ValidationError as error:
            problems = [
                FieldError(".".join(map(str, ("variants", name, *fault["loc"][1:]))), fault_text(fault))
                for fault in error.errors()
            ]
            raise Invalid("There is nothing to compare.", tuple(problems)) from error
        except ValueError as error:
            raise Invalid("There is nothing to compare.", (FieldError(f"variants.{name}", str(error)),)) from error
