"""Succeeded evaluations with accuracies per prompt."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from calibrl.schemas import Job, JobStatus
from jobs.db import session_scope
from jobs.repository import accuracies
from tests.support.dashboard.world import World

PROMPTS = 100
HALF_WIDTH = 0.1  # of the stored interval of an accuracy


def evaluated(
    world: World,
    name: str,
    *models: float | Sequence[float],
    split: str = "test",
    prompts: str = "prompt",
    spec: dict[str, Any] | None = None,
) -> Job:
    """Add an evaluation that has succeeded on one dataset.

    Args:
        models: per model its accuracy on each prompt, or one accuracy that it has on all of PROMPTS prompts.
        prompts: beginning of the prompts' digests; only evaluations with the same one are comparable.
        spec: fields of the spec; by default the models differ in their seeds.
    """
    values = [[given] * PROMPTS if isinstance(given, float) else list(given) for given in models]
    seeds = {"models": [{"builtin": "tiny-vlm", "seed": index} for index in range(max(len(values), 1))]}
    results = [_result(index, split, each) for index, each in enumerate(values)]
    job = world.add(
        kind="evaluate",
        name=name,
        status=JobStatus.SUCCEEDED,
        spec=seeds | (spec or {}),
        result={"results": results, "comparisons": []},
    )
    with session_scope() as session:
        for index, each in enumerate(values):
            digests = [f"{prompts} {number}" for number in range(len(each))]
            accuracies.put(session, job.id, index, split, digests, each)
    return job


def _result(index: int, split: str, values: Sequence[float]) -> dict[str, Any]:
    """Return the result of a model in the form in which the trainer reports it."""
    accuracy = fmean(values)
    bounds = {"accuracy_low": accuracy - HALF_WIDTH, "accuracy_high": accuracy + HALF_WIDTH}
    return {
        "model": "tiny-vlm",
        "model_index": index,
        "split": split,
        "prompts": len(values),
        "samples": 8,
        "metrics": {"accuracy": accuracy, **bounds, "length_mean": 28.0},
        "sources": {},
    }
