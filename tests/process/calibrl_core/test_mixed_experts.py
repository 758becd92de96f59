"""No algorithm waits without end if only one of the processes has a row with an expert."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.algorithms.registry import BUILT_IN
from tests.process.calibrl_core.test_distributed import BASE, EACH_STEP, SCRIPT, TORCHRUN, metrics, started, write_data
from tests.support.training import of_type
from tests.support.waiting import LIMIT_SECONDS

TYPES = [kind.model_fields["type"].default for kind in BUILT_IN]
OWN: dict[str, Any] = {"dapo": {"mini_batches": 1, "max_resamples": 1}, "sft": {}}


def settings(root: Path, type: str) -> dict[str, Any]:
    """Return a run of sharded weights with validations; one of six rows has an expert."""
    return BASE | {
        "parallel": "fsdp",
        "data": {"path": str(root / "one-expert.jsonl")},
        "algorithm": {"type": type, **OWN.get(type, {"mini_batches": 1})},
        "rollout": {"group_size": 2, "max_completion_tokens": 2},
        "validation": EACH_STEP,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "types"), [(2, TYPES), (3, ["calibrl"])])
def test_runs_with_one_expert_end(
    tmp_path: Path, text_policy: Callable[..., Any], processes: int, types: list[str]
) -> None:
    write_data(tmp_path, text_policy)
    runs = [{"folder": str(tmp_path / type), "config": settings(tmp_path, type)} for type in types]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN[:-1], str(processes), str(SCRIPT), str(tmp_path / "runs.json")]
    with started(command, tmp_path / "log.txt") as launcher:
        assert launcher.wait(LIMIT_SECONDS) == 0, (tmp_path / "log.txt").read_text()
    for type in types:
        (finish,) = of_type(tmp_path / type, "finish")
        assert (type, finish["status"], finish["step"]) == (type, "succeeded", 2)
        found = metrics(tmp_path / type)
        assert all("validation/accuracy" in values for values in found)
        assert all(math.isfinite(value) for values in found for value in values.values())
