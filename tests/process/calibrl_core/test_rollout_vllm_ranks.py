"""Two processes, each with its own vLLM engine, learn what two processes with `shared_prefill` learn.

`make test-vllm` runs these in their own environment; elsewhere they are skipped.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from calibrl_core.config import BuiltinModel
from calibrl_core.models.policy import load_policy
from tests.process.calibrl_core import run_ranks
from tests.support.training import of_type

SCRIPT = Path(run_ranks.__file__)
ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LIMIT_SECONDS = 400
# A rate at which one update moves log-probabilities by some 0.3 nats: weights of an earlier step would show.
CONFIG: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 6},
    "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 3}, "every_steps": 3, "samples": 2},
    "algorithm": {"type": "calibrl", "mini_batches": 2},
    "rollout": {"group_size": 3, "max_completion_tokens": 6, "engine": "vllm", "batch_tokens": 10_000},
    "optimizer": {"lr": 1e-3},
    "prompts_per_step": 3,
    "steps": 3,
    "checkpoints": {"every_steps": 3},
}
pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")


KINDS = ("ddp", "fsdp")
ENGINES = ("vllm", "shared_prefill")


def config(engine: str, kind: str) -> dict[str, Any]:
    return CONFIG | {"parallel": kind, "rollout": {**CONFIG["rollout"], "engine": engine}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs, each by two processes: ENGINE/KIND."""
    root = tmp_path_factory.mktemp("ranks")
    runs = [
        {"folder": str(root / engine / kind), "config": config(engine, kind)} for engine in ENGINES for kind in KINDS
    ]
    (root / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN, str(SCRIPT), str(root / "runs.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-6000:]
    return root


def values(run_dir: Path) -> list[dict[str, float]]:
    return [event["values"] for event in of_type(run_dir, "metrics")]


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_learn_the_same_weights(folder: Path, kind: str) -> None:
    """Up to a small part of the way from the start: where a gradient is nearly 0, Adam makes much of its rounding."""
    start = load_policy(BuiltinModel(builtin="tiny-vlm")).model.state_dict()
    vllm, own = (load_file(folder / engine / kind / "checkpoints/step-000003/model.safetensors") for engine in ENGINES)
    moved = sum(float((own[name] - start[name]).square().sum()) for name in own)
    apart = sum(float((own[name] - vllm[name]).square().sum()) for name in own)
    assert 0 <= apart < 1e-5 * moved
    for name in ("validation/length_mean", "reward/mean", "exploration/entropy"):
        found, expected = (values(folder / engine / kind)[-1][name] for engine in ENGINES)
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_steps_weights_reach_both_engines(folder: Path, kind: str) -> None:
    vllm, own = (values(folder / engine / kind) for engine in ENGINES)
    compared = ["kl/sampler" in step for step in vllm]
    assert compared == ["kl/sampler" in step for step in own]  # a step has none if no row has a weight
    assert any(compared)
    assert all(step.get("kl/sampler", 0.0) < 1e-9 for step in vllm)
    assert all(step["loss/grad_norm"] > 0 for step in vllm)
