"""Several processes with sharded weights end, whatever rows have an expert: every algorithm, each step validated."""

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

OWN: dict[str, Any] = {"dapo": {"mini_batches": 1, "max_resamples": 1}, "sft": {}}
TYPES = {kind.model_fields["type"].default: kind for kind in BUILT_IN}
# "one": of six rows, so that in each step all processes but one have none.
EXPERTS = {"all": BASE["data"], "one": {"path": "one-expert.jsonl"}, "none": {"path": "no-expert.jsonl"}}
STEPS = {"all": 1, "one": 2, "none": 1}
RUNS = [
    (name, experts)
    for name, kind in TYPES.items()
    for experts in EXPERTS
    if experts != "none" or not kind.needs_experts
]


def settings(root: Path, name: str, experts: str) -> dict[str, Any]:
    """Return the config of a run of two tokens; with a second step after a validation if processes differ in both."""
    data = EXPERTS[experts]
    return BASE | {
        "parallel": "fsdp",
        "data": {"path": str(root / data["path"])} if "path" in data else data,
        "algorithm": {"type": name, **OWN.get(name, {"mini_batches": 1})},
        "rollout": {"group_size": 2, "max_completion_tokens": 2},
        "validation": {**EACH_STEP, "samples": 1},
        "steps": STEPS[experts],
        "checkpoints": {"every_steps": 100},
    }


def write_rows_without_expert(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "one-expert.jsonl").read_text().splitlines()]
    bare = [json.dumps({**row, "expert": None}) for row in rows]
    (root / "no-expert.jsonl").write_text("\n".join(bare))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_every_algorithm_ends_whatever_rows_have_experts(
    tmp_path: Path, text_policy: Callable[..., Any], processes: int
) -> None:
    write_data(tmp_path, text_policy)
    write_rows_without_expert(tmp_path)
    runs = [{"folder": str(tmp_path / "-".join(run)), "config": settings(tmp_path, *run)} for run in RUNS]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN[:-1], str(processes), str(SCRIPT), str(tmp_path / "runs.json")]
    with started(command, tmp_path / "log.txt") as launcher:
        assert launcher.wait(LIMIT_SECONDS) == 0, (tmp_path / "log.txt").read_text()
    for name, experts in RUNS:
        (finish,) = of_type(tmp_path / f"{name}-{experts}", "finish")
        assert (name, experts, finish["status"], finish["step"]) == (name, experts, "succeeded", STEPS[experts])
        found = metrics(tmp_path / f"{name}-{experts}")
        assert len(found) == STEPS[experts]
        assert all("validation/accuracy" in values for values in found)
        assert all(math.isfinite(value) for values in found for value in values.values())
