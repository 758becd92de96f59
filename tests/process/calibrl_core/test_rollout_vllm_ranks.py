"""Two processes, each with its own vLLM engine, learn what one process with `shared_prefill` learns.

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
import torch
from safetensors.torch import load_file

from calibrl_core.distributed.ranks import ALONE
from calibrl_core.verifiers.scorer import Scorer
from tests.process.calibrl_core import run_ranks
from tests.support.training import of_type, score_by_hash

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs: ddp and fsdp by two processes with vLLM, one by this process without."""
    root = tmp_path_factory.mktemp("ranks")
    runs = [{"folder": str(root / kind), "config": CONFIG | {"parallel": kind}} for kind in ("ddp", "fsdp")]
    (root / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN, str(SCRIPT), str(root / "runs.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-6000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "score_all", score_by_hash)
        rollout = {**CONFIG["rollout"], "engine": "shared_prefill"}
        run_ranks.run(root / "one", CONFIG | {"rollout": rollout}, None, ALONE)
    return root


def weights(run_dir: Path) -> Any:
    return load_file(run_dir / "checkpoints/step-000003/model.safetensors")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_with_vllm_learn_what_one_without_learns(folder: Path, kind: str) -> None:
    expected, found = weights(folder / "one"), weights(folder / kind)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-5)
    (one,) = [event["values"] for event in of_type(folder / "one", "metrics")][-1:]
    (two,) = [event["values"] for event in of_type(folder / kind, "metrics")][-1:]
    assert two["validation/length_mean"] == one["validation/length_mean"]
    assert two["reward/mean"] == one["reward/mean"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_every_steps_weights_reach_both_engines(folder: Path, kind: str) -> None:
    one, two = ([event["values"] for event in of_type(folder / name, "metrics")] for name in ("one", kind))
    compared = [values.get("kl/sampler") is not None for values in two]
    assert compared == [values.get("kl/sampler") is not None for values in one]
    assert any(compared)
    assert all(values.get("kl/sampler", 0.0) < 1e-9 for values in two)
    assert all(values["loss/grad_norm"] > 0 for values in two)
